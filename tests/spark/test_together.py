"""Workers that start together, on real barrier tasks."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from brain_mri.spark.together import Seat, TogetherLauncher, TooFewSlotsError, WorkerDiedError

pytestmark = pytest.mark.spark


def test_every_worker_has_its_seat_and_is_a_process_of_its_own(spark: Any) -> None:
    def sit(seat: Seat) -> tuple[int, tuple[str, ...], int]:
        return seat.rank, seat.addresses, os.getpid()

    launcher = TogetherLauncher(workers=2)
    results = launcher.run(sit) + launcher.run(sit)
    assert [rank for rank, _, _ in results] == [0, 1, 0, 1]
    assert results[0][1] == results[1][1]
    assert len(set(results[0][1])) == 2
    assert len({process for _, _, process in results}) == 4


def test_what_workers_say_reaches_the_driver_while_they_work(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = tmp_path / "go on"

    def speak(seat: Seat) -> None:
        logging.getLogger("brain_mri.test").info("Epoch 1 of rank %d.", seat.rank)
        sys.stdout.write("noise that is nobody's business\n")
        while not go_on.exists():
            time.sleep(0.01)

    def wait_for_the_lines() -> None:
        deadline = time.monotonic() + 60
        while len([m for m in caplog.messages if "Epoch 1" in m]) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        go_on.touch()

    waiting = threading.Thread(target=wait_for_the_lines)
    waiting.start()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        TogetherLauncher(workers=2).run(speak)
    waiting.join()
    assert {"Epoch 1 of rank 0.", "Worker 1: Epoch 1 of rank 1."} <= set(caplog.messages)
    assert "noise" not in caplog.text


def test_too_few_slots_are_named_before_anything_starts(spark: Any) -> None:
    slots = spark.sparkContext.defaultParallelism
    expected = rf"{slots + 1} workers of 1 core .* offers {slots} free cores"
    with pytest.raises(TooFewSlotsError, match=expected):
        TogetherLauncher(workers=slots + 1).run(lambda seat: seat.rank)


def test_an_error_of_one_worker_is_raised_at_once_and_ends_the_others(spark: Any, tmp_path: Path) -> None:
    def fail(seat: Seat) -> None:
        (tmp_path / f"{seat.rank}-{os.getpid()}").touch()
        if seat.rank == 1:
            while len(list(tmp_path.iterdir())) < 2:
                time.sleep(0.01)
            raise ArithmeticError("The loss became nan.")
        time.sleep(600)

    with pytest.raises(ArithmeticError, match="The loss became nan"):
        TogetherLauncher(workers=2).run(fail)
    started = {int(path.name.partition("-")[2]) for path in tmp_path.iterdir()}
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(process) for process in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(process) for process in started)


def test_after_a_death_all_are_started_again(spark: Any, tmp_path: Path) -> None:
    def die_once(seat: Seat) -> int:
        mark = tmp_path / f"rank {seat.rank}"
        mark.write_text(f"{mark.read_text() if mark.exists() else ''}x")
        if seat.rank == 1 and mark.read_text() == "x":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2 if mark.read_text() == "x" else 0)
        return len(mark.read_text())

    assert TogetherLauncher(workers=2).run(die_once) == [2, 2]


def test_a_worker_that_dies_again_and_again_is_quoted(spark: Any) -> None:
    def die(seat: Seat) -> None:
        if seat.rank == 0:
            time.sleep(60)
        sys.stdout.write("Out of the memory that it was given\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDiedError, match=r"(?s)^Worker 1 on .* signal 9.*Out of the memory that it"):
        TogetherLauncher(workers=2).run(die)
