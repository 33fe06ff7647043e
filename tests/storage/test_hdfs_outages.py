"""Storage whose daemons die while it is used: real ones, killed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem, read_file, write_file
from brain_mri.storage.reach import check_reachable

if TYPE_CHECKING:
    from tests.clusters import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = "hdfs:///user/test-storage"
DATANODES = ("datanode-1", "datanode-2", "datanode-3")


@pytest.fixture
def own_cluster(start_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that the test may break, in the environment of this process."""
    own = start_cluster("--workers", "1")
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    return own


class Traffic:
    """Writes and reads back files in several threads until it is stopped.

    Attributes:
        spans: When each write began and ended.
    """

    def __init__(self, threads: int = 3) -> None:
        self.spans: list[tuple[float, float]] = []
        self.errors: list[Exception] = []
        self.written: dict[str, bytes] = {}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_writes(self, count: int) -> None:
        """Wait until so many more files are written."""
        wanted = len(self.spans) + count
        while len(self.spans) < wanted and not self.errors:
            time.sleep(0.02)

    def _go_on(self, number: int) -> None:
        filesystem, root = open_filesystem(ROOT)
        try:
            while not self._ended.is_set():
                path, content = f"{root}/{number}/{len(self.spans) % 7}", os.urandom(400_000)
                begin = time.time()
                write_file(filesystem, path, content)
                self.spans.append((begin, time.time()))
                self.written[path] = content
        except Exception as error:
            self.errors.append(error)


def check(traffic: Traffic, fault: float) -> None:
    """Assert that a fault fell into a write, that no write failed, and that all is there."""
    assert traffic.errors == []
    assert any(begin < fault < end for begin, end in traffic.spans), "the fault must fall into a write"
    filesystem, _ = open_filesystem(ROOT)
    assert {path: read_file(filesystem, path) for path in traffic.written} == traffic.written


def test_a_namenode_that_is_killed_and_restarted_costs_time_and_nothing_else(own_cluster: Cluster) -> None:
    first = own_cluster.namenode("NameNodeInfo")["NNStartedTimeInMillis"]
    with Traffic() as traffic:
        traffic.wait_for_writes(10)
        killed = time.time()
        restart_namenode(own_cluster)
        traffic.wait_for_writes(10)
    assert own_cluster.namenode("NameNodeInfo")["NNStartedTimeInMillis"] > max(first, killed * 1000)
    check(traffic, killed)


def test_a_datanode_that_is_killed_costs_time_and_nothing_else(own_cluster: Cluster) -> None:
    with Traffic() as traffic:
        traffic.wait_for_writes(10)
        killed = time.time()
        own_cluster.kill("datanode-2")
        while own_cluster.namenode()["NumLiveDataNodes"] == 3:
            time.sleep(0.2)
        traffic.wait_for_writes(10)
    assert own_cluster.namenode()["NumLiveDataNodes"] == 2
    check(traffic, killed)


def test_without_datanodes_the_error_is_clear_and_afterwards_all_is_there(own_cluster: Cluster) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    write_file(filesystem, path, b"old")
    for name in DATANODES:
        own_cluster.kill(name)
    while own_cluster.namenode()["NumLiveDataNodes"]:
        time.sleep(0.2)
    for what, sentence in (
        (lambda: check_reachable(ROOT), r"has no live DataNode|A DataNode \S+ HDFS at \S+ is gone"),
        (lambda: write_file(filesystem, path, b"new"), "has no live DataNode, so .*/file cannot be written"),
        (lambda: read_file(filesystem, path), r"/file cannot be read: no live DataNode"),
    ):
        begin = time.monotonic()
        with pytest.raises(StorageError, match=sentence):
            what()
        assert time.monotonic() - begin < 30
    own_cluster.up()
    assert read_file(filesystem, path) == b"old"
    write_file(filesystem, path, b"new")
    assert read_file(filesystem, path) == b"new"


def test_a_namenode_that_is_not_running_is_told_within_30_seconds(own_cluster: Cluster) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    write_file(filesystem, path, b"old")
    address = own_cluster.addresses["namenode"]
    own_cluster.kill("namenode")
    begin = time.monotonic()
    with pytest.raises(StorageError, match=f"HDFS is not running at {address}"):
        check_reachable(ROOT)
    assert time.monotonic() - begin < 10
    for look_up in (lambda: read_file(filesystem, path), lambda: filesystem.isdir(path)):
        begin = time.monotonic()
        with pytest.raises(StorageError, match=f"HDFS is not running at {address}"):
            look_up()
        assert 15 < time.monotonic() - begin < 30


def test_a_namenode_that_waits_for_its_datanodes_is_told_and_waited_for_only_in_a_run(
    own_cluster: Cluster,
) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    for number in range(3):
        write_file(filesystem, f"{path}-{number}", b"x")
    for name in DATANODES:
        own_cluster.kill(name)
    restart_namenode(own_cluster)
    while not filesystem.exists("/"):
        pass
    assert own_cluster.namenode("NameNodeInfo")["Safemode"]
    begin = time.monotonic()
    with pytest.raises(StorageError, match=r"in safe mode: its NameNode has just started.*reported blocks 0"):
        check_reachable(ROOT)
    assert time.monotonic() - begin < 10
    with pytest.raises(StorageError, match="is in safe mode"):
        write_file(filesystem, f"{path}-0", b"new")
    assert 15 < time.monotonic() - begin < 35


def restart_namenode(cluster: Cluster) -> None:
    """Kill the NameNode and start it anew at once, as a supervisor would."""
    process = cluster.processes["namenode"]
    command, environment = process.cmdline(), process.environ()
    cluster.kill("namenode")
    subprocess.Popen(
        command,
        env=environment,
        cwd=cluster.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
