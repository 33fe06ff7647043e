"""One run at a time per storage root."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import fsspec
import psutil
import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from brain_mri.storage.lock import LockedError, RunLock

HOLD = textwrap.dedent(
    """
    import sys
    from brain_mri.storage.lock import RunLock

    RunLock(sys.argv[1]).acquire()
    print("held", flush=True)
    sys.stdin.read()
    """
)


class ArrowDisk(ArrowFSWrapper):
    """A disk with the manners of HDFS: pyarrow opens files for rb, wb and ab and nothing else."""

    protocol = "arrowdisk"

    def __init__(self, **arguments):  # type: ignore[no-untyped-def]
        super().__init__(pyarrow.fs.LocalFileSystem(), **arguments)


fsspec.register_implementation("arrowdisk", ArrowDisk, clobber=True)


@pytest.fixture
def holder(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Another process that holds the lock until its input ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_who_holds_the_root(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError, match=rf"process {holder.pid} on .*run\.break_lock=true"):
        RunLock(str(tmp_path)).acquire()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / ".run.lock").exists(), "the kill must have left the lock behind"
    RunLock(str(tmp_path)).acquire()
    assert json.loads((tmp_path / ".run.lock").read_text())["pid"] == os.getpid()


def test_a_lock_from_another_machine_is_respected_until_it_is_broken(tmp_path: Path) -> None:
    free_pid = max(psutil.pids()) + 100_000
    (tmp_path / ".run.lock").write_text(json.dumps({"pid": free_pid, "host": "elsewhere"}))
    lock = RunLock(str(tmp_path))
    with pytest.raises(LockedError):
        lock.acquire()
    lock.acquire(break_lock=True)
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_releasing_a_lock_that_is_not_held_leaves_it(tmp_path: Path) -> None:
    lock = RunLock(str(tmp_path))
    lock.acquire()
    RunLock(str(tmp_path)).release()
    assert (tmp_path / ".run.lock").exists()


def test_a_run_whose_lock_was_broken_leaves_the_new_one(tmp_path: Path) -> None:
    old = RunLock(str(tmp_path))
    old.acquire()
    (tmp_path / ".run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    old.release()
    assert (tmp_path / ".run.lock").exists()


def test_a_lock_works_where_files_cannot_be_created_exclusively(tmp_path: Path) -> None:
    root = f"arrowdisk://{tmp_path}/data"
    with pytest.raises(ValueError, match="unsupported mode"):
        ArrowDisk().open(f"{tmp_path}/file", "xb")
    lock = RunLock(root)
    lock.acquire()
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".run.lock"]
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        RunLock(root).acquire()
    lock.release()
    (tmp_path / "data" / ".run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    RunLock(root).acquire(break_lock=True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".run.lock"]


@pytest.mark.parametrize("goes_on", ["and is about to write its lock", "and holds its lock"])
def test_of_two_that_take_over_a_dead_lock_one_succeeds(tmp_path: Path, goes_on: str) -> None:
    path, live = tmp_path / ".run.lock", json.dumps({"pid": 1, "host": "elsewhere"})
    free_pid = max(psutil.pids()) + 100_000
    path.write_text(json.dumps({**_holder(), "pid": free_pid}))
    overtaken: list[str] = []

    class OvertakingFileSystem(LocalFileSystem):
        """Another run removes the dead lock just before this one does."""

        def mv(self, path1, path2, **arguments):  # type: ignore[no-untyped-def]
            if not overtaken:
                overtaken.append(path1)
                path.unlink()
                if goes_on == "and holds its lock":
                    path.write_text(live)
            super().mv(path1, path2, **arguments)

    lock = RunLock(str(tmp_path))
    lock._filesystem = OvertakingFileSystem()
    with pytest.raises(LockedError, match="at this moment"):
        lock.acquire()
    assert overtaken
    left = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert left == ({".run.lock": live} if goes_on == "and holds its lock" else {})


@pytest.mark.parametrize(("seconds", "taken"), [(1.0, False), (10.0, True)])
def test_a_clock_that_was_corrected_makes_no_live_process_dead(
    tmp_path: Path, holder: subprocess.Popen[str], seconds: float, taken: bool
) -> None:
    path = tmp_path / ".run.lock"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "created": written["created"] + seconds}))
    if taken:
        RunLock(str(tmp_path)).acquire()
    else:
        with pytest.raises(LockedError, match=str(holder.pid)):
            RunLock(str(tmp_path)).acquire()


@pytest.mark.parametrize("content", [b"", b'{"pid": 12', b"[]", b"\xff"])
def test_a_lock_that_does_not_say_whose_it_is_is_respected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".run.lock").write_bytes(content)
    lock = RunLock(str(tmp_path))
    with pytest.raises(LockedError, match=r"empty or cannot be read.*run\.break_lock=true"):
        lock.acquire()
    lock.acquire(break_lock=True)
    assert json.loads((tmp_path / ".run.lock").read_text())["pid"] == os.getpid()


def test_a_disk_that_is_full_leaves_no_empty_lock(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            RunLock(str(tmp_path)).acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_of_this_process_does_not_stand_in_the_way(tmp_path: Path) -> None:
    lock: RunLock | None = RunLock(str(tmp_path))
    assert lock is not None
    lock.acquire()
    with pytest.raises(LockedError, match=str(os.getpid())):
        RunLock(str(tmp_path)).acquire()
    lock = None  # what Ctrl-C leaves: nobody releases the lock, and nobody holds it
    assert (tmp_path / ".run.lock").exists()
    again = RunLock(str(tmp_path))
    again.acquire()
    with pytest.raises(LockedError):
        RunLock(str(tmp_path)).acquire()
    again.release()
    assert list(tmp_path.iterdir()) == []


def _holder() -> dict[str, object]:
    from brain_mri.storage.lock import _this_process

    return _this_process()
