"""Functions that have nothing to do with each other, as real Spark tasks."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark.each import EachLauncher
from brain_mri.spark.processes import Needs, Seat
from brain_mri.spark.slots import TooFewSlotsError
from tests.spark_workers import running_workers

pytestmark = pytest.mark.spark


def appears(path: Path) -> bool:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def all_end() -> bool:
    """Whether the processes of workers end; Spark lets them a moment after their jobs."""
    deadline = time.monotonic() + 30
    while running_workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not running_workers()


def test_as_many_run_at_once_as_there_are_slots_and_one_that_dies_is_lost(spark: Any, tmp_path: Path) -> None:
    def meet(number: int, seat: Seat) -> int:
        """Wait for the next one, which runs only if two may run at the same time."""
        with (tmp_path / f"{number}").open("a") as mark:
            mark.write("x")
        if number == 0 and not appears(tmp_path / "1"):
            return -1
        if number == 1:
            sys.stdout.write("Out of memory\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * number

    functions: list[Callable[[Seat], Any]] = [partial(meet, number) for number in range(4)]
    results = dict(EachLauncher().run(functions, lambda said: f"lost: {said}"))
    assert {number: results[number] for number in (0, 2, 3)} == {0: 0, 2: 20, 3: 30}
    assert "lost: Worker 1 was killed by signal 9" in results[1]
    assert "Out of memory" in results[1]
    assert (tmp_path / "1").read_text() == "x", "not tried again"


@pytest.mark.slow
def test_a_result_is_there_before_the_others_end_and_breaking_off_ends_them(
    spark: Any, tmp_path: Path
) -> None:
    def work(number: int, seat: Seat) -> int:
        (tmp_path / f"{number}").touch()
        if number == 1:
            time.sleep(600)
        return number if appears(tmp_path / "1") else -1

    results = EachLauncher().run([partial(work, number) for number in (0, 1)], lambda said: -1)
    assert next(results) == (0, 0)
    assert running_workers()
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert all_end()


@pytest.mark.slow
def test_an_error_ends_all(spark: Any, tmp_path: Path) -> None:
    def fail(number: int, seat: Seat) -> None:
        if number == 0:
            time.sleep(600)
        raise FileNotFoundError("The storage is gone.")

    with pytest.raises(FileNotFoundError, match=r"The storage is gone\."):
        list(EachLauncher().run([partial(fail, number) for number in (0, 1)], lambda said: None))
    assert all_end()


def test_needs_that_no_slot_meets_are_named_with_their_parameter(spark: Any) -> None:
    launcher = EachLauncher(Needs(cores=999, asked_by="tuning.trial"))
    with pytest.raises(TooFewSlotsError, match=r"A worker of 999 cores has to run.*\(tuning\.trial_cores\)"):
        list(launcher.run([lambda seat: seat.rank], lambda said: -1))
