"""Workers that do not need each other, as real Spark tasks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark.apart import ATTEMPTS, ApartLauncher
from brain_mri.spark.processes import Seat, WorkerDiedError
from brain_mri.spark.slots import TooFewSlotsError

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_a_worker_that_dies_is_started_again_alone(spark: Any, tmp_path: Path) -> None:
    def die_once(seat: Seat) -> tuple[int, int]:
        mark = tmp_path / f"rank {seat.rank}"
        mark.write_text(f"{mark.read_text() if mark.exists() else ''}x")
        if seat.rank == 1 and mark.read_text() == "x":
            os.kill(os.getpid(), signal.SIGKILL)
        while seat.rank == 0 and not (tmp_path / "rank 1").exists():
            time.sleep(0.01)
        return seat.rank, len(mark.read_text())

    assert ApartLauncher(workers=2).run(die_once) == [(0, 1), (1, 2)]


def test_a_worker_that_dies_again_and_again_is_quoted_and_ends_the_others(spark: Any, tmp_path: Path) -> None:
    def die(seat: Seat) -> None:
        if seat.rank == 0:
            time.sleep(600)
        (tmp_path / f"{time.monotonic()}").touch()
        sys.stdout.write("Out of the memory that it was given\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    expected = r"(?s)Worker 1 was killed by signal 9\. Its last lines:.*Out of the memory"
    with pytest.raises(WorkerDiedError, match=expected):
        ApartLauncher(workers=2).run(die)
    assert len(list(tmp_path.iterdir())) == ATTEMPTS


def test_an_error_of_one_ends_all_at_once(spark: Any) -> None:
    def fail(seat: Seat) -> None:
        if seat.rank == 1:
            raise ArithmeticError("The loss became nan.")
        time.sleep(600)

    with pytest.raises(ArithmeticError, match="The loss became nan"):
        ApartLauncher(workers=2).run(fail)


def test_too_few_slots_are_named(spark: Any) -> None:
    slots = spark.sparkContext.defaultParallelism
    with pytest.raises(TooFewSlotsError, match=rf"{slots + 1} workers of 1 core"):
        ApartLauncher(workers=slots + 1).run(lambda seat: seat.rank)
