"""The same function runs in processes and as Spark tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher


def _where(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def _variable(number: int) -> tuple[str | None, int]:
    return os.environ.get("BRAIN_MRI_TEST_VARIABLE"), os.getpid()


def _fail(number: int) -> int:
    raise OSError(f"item {number} is broken")


def test_processes_do_the_work_elsewhere_and_lose_nothing() -> None:
    results = list(ProcessLauncher(workers=2).map(_where, range(20)))
    assert sorted(square for square, _ in results) == [number * number for number in range(20)]
    assert os.getpid() not in {process for _, process in results}


def test_an_error_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(OSError, match="is broken"):
        list(ProcessLauncher(workers=2).map(_fail, [1, 2, 3]))


def test_processes_that_are_there_learn_of_variables_that_are_set_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Hadoop configuration is set when a run begins, in a notebook perhaps after another run."""
    launcher = ProcessLauncher(workers=2)
    before = {process for _, process in launcher.map(_where, range(8))}
    monkeypatch.setenv("BRAIN_MRI_TEST_VARIABLE", "set")
    answers = list(launcher.map(_variable, range(8)))
    assert {value for value, _ in answers} == {"set"}
    assert before & {process for _, process in answers}, "the processes must be those from before"


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(ProcessLauncher(workers=2).map(_where, [])) == []


@pytest.mark.spark
def test_spark_tasks_do_the_same(spark: Any) -> None:
    results = list(SparkLauncher().map(lambda number: (number * number, os.getpid()), range(6)))
    assert sorted(square for square, _ in results) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in results}
    assert list(SparkLauncher().map(_where, [])) == []


@pytest.mark.spark
def test_spark_gives_a_result_before_all_tasks_have_ended(spark: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def work(number: int) -> int:
        if number == 1:
            _wait_for(seen.exists)
        return number

    results = SparkLauncher().map(work, [0, 1])
    assert next(results) == 0
    seen.touch()
    assert list(results) == [1]


@pytest.mark.spark
def test_an_error_in_a_spark_task_ends_the_others(spark: Any, tmp_path: Path) -> None:
    started = tmp_path / "started"

    def work(number: int) -> None:
        if number == 1:
            _wait_for(started.exists)
            raise OSError("item 1 is broken")
        started.touch()
        time.sleep(120)

    begun = time.monotonic()
    with pytest.raises(Exception, match="item 1 is broken"):
        list(SparkLauncher().map(work, [0, 1]))
    assert started.exists()
    assert time.monotonic() - begun < 60, "the other task must not be waited for"
    assert list(spark.sparkContext.statusTracker().getActiveJobsIds()) == []


REPEATING = """
import sys
from pathlib import Path
from brain_mri.spark import session
from brain_mri.spark.launchers import SparkLauncher
from brain_mri.storage.faults import StorageError

folder = Path(sys.argv[1])
# Four attempts a task, as on a cluster.
session.configure({"spark.master": "local[1,4]", "spark.ui.enabled": False, "spark.log.level": "OFF"})

def lose(number):
    with (folder / "lost").open("a") as stream:
        stream.write("one\\n")
    raise StorageError("the storage is gone", patience=25.0)

def fail(number):
    with (folder / "failed").open("a") as stream:
        stream.write("one\\n")
    raise OSError("the item is broken")

for work in lose, fail:
    try:
        list(SparkLauncher().map(work, [0]))
    except Exception as error:
        print(type(error).__name__, getattr(error, "patience", None))
"""


@pytest.mark.spark
def test_a_lost_storage_is_not_waited_for_four_times(tmp_path: Path) -> None:
    """On a cluster Spark repeats a task that fails three times; each would wait for the storage once more."""
    # A process of its own: a session that repeats tasks is on another master than the one the tests share.
    done = subprocess.run(
        [sys.executable, "-c", REPEATING, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "StorageError 25.0"
    assert (tmp_path / "lost").read_text() == "one\n"
    assert (tmp_path / "failed").read_text() == "one\n" * 4


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.05)
