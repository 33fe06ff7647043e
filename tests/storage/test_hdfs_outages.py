"""Storage whose daemons die while it is used: real ones, killed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from brain_mri.cluster import daemons
from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem, read_file, write_file
from brain_mri.storage.reach import check_reachable
from tests.clusters import Cluster, running_cluster, wait_for
from tests.faults.storage import frozen

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = "hdfs:///user/test-storage"
DATANODES = ("datanode-1", "datanode-2", "datanode-3")


@pytest.fixture(scope="module")
def broken_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the tests of this module: each breaks it, and mends what the one before it broke."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), "--workers", "1") as cluster:
        yield cluster


@pytest.fixture
def own_cluster(broken_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """That cluster, whole, in the environment of this process."""
    broken_cluster.mend()
    broken_cluster.use(monkeypatch)
    return broken_cluster


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
        wait_for(lambda: len(self.spans) >= wanted or self.errors, f"{count} more writes")

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
        killed, half = kill_a_writer(own_cluster)
        wait_for(lambda: own_cluster.namenode()["NumLiveDataNodes"] == 2, "the NameNode to miss it")
        traffic.wait_for_writes(10)
    assert half.exists(), "the block was finished before"
    check(traffic, killed)


def kill_a_writer(cluster: Cluster) -> tuple[float, Path]:
    """Kill a DataNode while it receives a block: when, and the replica that it leaves half-written."""
    process, deadline = cluster.processes["datanode-2"], time.monotonic() + 60
    while time.monotonic() < deadline:
        with frozen(process):
            for replica in cluster.folder.glob("hdfs/data-2/current/BP-*/current/rbw/blk_*"):
                daemons.end([process], signals=("kill",))
                return time.time(), replica
        time.sleep(0.01)
    raise AssertionError("the DataNode was not seen receiving a block")


def test_without_datanodes_the_error_is_clear_and_afterwards_all_is_there(own_cluster: Cluster) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    write_file(filesystem, path, b"old")
    for name in DATANODES:
        own_cluster.kill(name)
    wait_for(lambda: not own_cluster.namenode()["NumLiveDataNodes"], "the NameNode to miss all")
    attempts = {
        r"has no live DataNode|A DataNode \S+ HDFS at \S+ is gone": lambda: check_reachable(ROOT),
        "has no live DataNode, so .*/file cannot be written": lambda: write_file(filesystem, path, b"new"),
        r"/file cannot be read: no live DataNode": lambda: read_file(filesystem, path),
    }
    with ThreadPoolExecutor() as pool:
        assert max(pool.map(seconds_to_fail, attempts.values(), attempts)) < 30
    own_cluster.up()
    assert read_file(filesystem, path) == b"old"
    write_file(filesystem, path, b"new")
    assert read_file(filesystem, path) == b"new"


def test_a_namenode_that_is_not_running_is_told_within_30_seconds(own_cluster: Cluster) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    write_file(filesystem, path, b"old")
    address = own_cluster.addresses["namenode"]
    own_cluster.kill("namenode")
    sentence = f"HDFS is not running at {address}"
    assert seconds_to_fail(lambda: check_reachable(ROOT), sentence) < 10
    look_ups = [lambda: read_file(filesystem, path), lambda: filesystem.isdir(path)]
    with ThreadPoolExecutor() as pool:
        seconds = list(pool.map(seconds_to_fail, look_ups, [sentence, sentence]))
    assert 15 < min(seconds) <= max(seconds) < 30


def test_a_namenode_that_waits_for_its_datanodes_is_told_and_waited_for_only_in_a_run(
    own_cluster: Cluster,
) -> None:
    filesystem, path = open_filesystem(f"{ROOT}/file")
    for number in range(3):
        write_file(filesystem, f"{path}-{number}", b"x")
    for name in DATANODES:
        own_cluster.kill(name)
    restart_namenode(own_cluster)
    wait_for(lambda: filesystem.exists("/"), "the NameNode to be back")
    assert own_cluster.namenode("NameNodeInfo")["Safemode"]
    begin = time.monotonic()
    with pytest.raises(StorageError, match=r"in safe mode: its NameNode has just started.*reported blocks 0"):
        check_reachable(ROOT)
    assert time.monotonic() - begin < 10
    with pytest.raises(StorageError, match="is in safe mode"):
        write_file(filesystem, f"{path}-0", b"new")
    assert 15 < time.monotonic() - begin < 35


def seconds_to_fail(operation: Callable[[], object], sentence: str) -> float:
    """How long it takes until an operation fails with a sentence."""
    begin = time.monotonic()
    with pytest.raises(StorageError, match=sentence):
        operation()
    return time.monotonic() - begin


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
