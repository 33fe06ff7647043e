"""One run at a time per storage root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

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
    RunLock(str(tmp_path)).acquire()
    RunLock(str(tmp_path)).release()
    assert (tmp_path / ".run.lock").exists()
