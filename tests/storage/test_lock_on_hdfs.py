"""One run at a time per storage root on HDFS, and what a killed run leaves there."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from brain_mri.storage.files import open_filesystem, read_file, remove, sweep, temporary_name, write_file
from brain_mri.storage.lock import LockedError, RunLock

if TYPE_CHECKING:
    from tests.clusters import Cluster

pytestmark = pytest.mark.cluster

_numbers = itertools.count()

RACE = textwrap.dedent(
    """
    import sys, time
    from brain_mri.storage.files import open_filesystem
    from brain_mri.storage.lock import LockedError, RunLock

    locks = [RunLock(f"{sys.argv[1]}/{number}") for number in range(int(sys.argv[2]))]
    open_filesystem(sys.argv[1])[0].exists("/")  # connects
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    for number, lock in enumerate(locks):
        time.sleep(max(0, start + 0.4 * number - time.time()))
        try:
            lock.acquire()
            print("won", flush=True)
        except LockedError as error:
            print("at this moment" if "at this moment" in str(error) else "held", flush=True)
    sys.stdin.read()
    """
)

HALF = textwrap.dedent(
    """
    import sys, time
    from brain_mri.storage.files import open_filesystem
    from brain_mri.storage.lock import RunLock

    filesystem, path = open_filesystem(sys.argv[1])
    RunLock(sys.argv[1]).acquire()
    streams = [filesystem.open(f"{path}/{name}", "wb", block_size=2**20) for name in sys.argv[2:]]
    for stream in streams:
        stream.write(bytes(3 * 2**19))
    print("half", flush=True)
    time.sleep(600)
    """
)


@pytest.fixture
def root(in_cluster: Cluster) -> Iterator[str]:
    """A storage root of its own on the shared cluster."""
    url = f"hdfs:///user/test-storage/lock-{os.getpid()}-{next(_numbers)}"
    yield url
    remove(*open_filesystem(url))


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_several_runs_that_start_at_once_exactly_one_goes_on(root: str) -> None:
    rounds = 8
    racers = [start(RACE, root, str(rounds)) for _ in range(3)]
    try:
        assert [read_line(racer) for racer in racers] == ["ready"] * 3
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{time.time() + 0.2}\n")
            racer.stdin.flush()
        outcomes = [[read_line(racer) for racer in racers] for _ in range(rounds)]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    for outcome in outcomes:
        assert Counter(outcome)["won"] == 1, outcomes
    assert any("at this moment" in outcome for outcome in outcomes), "they must have met at least once"
    filesystem, path = open_filesystem(root)
    assert len([name for name in filesystem.find(path) if name.endswith("/.run.lock")]) == rounds


def test_a_run_that_did_not_see_the_other_one_is_refused_by_the_namenode(root: str) -> None:
    """The look before the rename is a courtesy; what counts is the rename."""
    holder = RunLock(root)
    holder.acquire()
    filesystem, path = open_filesystem(root)
    late = RunLock(root)

    class Blind:
        """HDFS, where the other run's lock appears just after one has looked."""

        def __getattr__(self, name: str) -> object:
            return getattr(filesystem, name)

        def exists(self, looked: str) -> bool:
            return False

    late._filesystem = Blind()
    before = read_file(filesystem, f"{path}/.run.lock")
    with pytest.raises(LockedError, match="at this moment"):
        late.acquire()
    assert read_file(filesystem, f"{path}/.run.lock") == before
    assert [name for name in filesystem.ls(path, detail=False) if ".tmp" in name] == []


def test_what_a_killed_run_left_open_is_taken_over_swept_and_overwritten(
    root: str, in_cluster: Cluster
) -> None:
    temporary = temporary_name("/scans.bin").removeprefix("/")
    killed = start(HALF, root, temporary, "model.bin")
    try:
        assert read_line(killed) == "half"
        with pytest.raises(LockedError, match=f"process {killed.pid}"):
            RunLock(root).acquire()
    finally:
        killed.kill()
        killed.wait()
    filesystem, path = open_filesystem(root)
    for name in (temporary, "model.bin"):
        assert is_open_for_writing(in_cluster, f"{path}/{name}"), (
            "the NameNode must still wait for the writer"
        )
    lock = RunLock(root)
    lock.acquire()
    assert json.loads(read_file(filesystem, f"{path}/.run.lock"))["pid"] == os.getpid()
    assert not is_open_for_writing(in_cluster, f"{path}/.run.lock")
    assert sweep(root) == 1
    write_file(filesystem, f"{path}/model.bin", b"new")
    assert read_file(filesystem, f"{path}/model.bin") == b"new"
    assert not is_open_for_writing(in_cluster, f"{path}/model.bin")
    lock.release()
    assert filesystem.ls(path, detail=False) == [f"{path}/model.bin"]


def is_open_for_writing(cluster: Cluster, path: str) -> bool:
    """What the NameNode says of a file."""
    user = open_filesystem("hdfs:///user")[0].info("/")["owner"]
    query = f"ugi={user}&path={path}&files=1&openforwrite=1"
    with urllib.request.urlopen(f"http://{cluster.addresses['namenode_http']}/fsck?{query}") as page:
        report = page.read().decode()
    assert path in report, report
    return "OPENFORWRITE" in report
