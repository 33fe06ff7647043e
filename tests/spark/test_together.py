"""Workers that start together, on real barrier tasks."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import psutil
import pytest

from brain_mri.spark.processes import Ear, Seat, WorkerDiedError
from brain_mri.spark.slots import TooFewSlotsError
from brain_mri.spark.together import TogetherLauncher

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
    go_on, heard = tmp_path / "go on", list[str]()

    def speak(seat: Seat) -> None:
        logging.getLogger("brain_mri.test").info("Epoch 1 of rank %d.", seat.rank)
        sys.stdout.write("noise that is nobody's business\n")
        while not go_on.exists():
            time.sleep(0.01)

    def wait_for_the_lines() -> None:
        deadline = time.monotonic() + 60
        while len([m for m in caplog.messages if "Epoch 1" in m]) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        heard.extend(m for m in caplog.messages if "Epoch 1" in m)
        go_on.touch()

    waiting = threading.Thread(target=wait_for_the_lines)
    waiting.start()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        TogetherLauncher(workers=2).run(speak)
    waiting.join()
    assert set(heard) == {"Epoch 1 of rank 0.", "Worker 1: Epoch 1 of rank 1."}
    assert "noise" not in caplog.text


def test_too_few_slots_are_named_before_anything_starts(spark: Any) -> None:
    slots = spark.sparkContext.defaultParallelism
    expected = rf"{slots + 1} workers of 1 core .* has room for {slots}\. Ask for fewer"
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
            while not (tmp_path / "rank 0").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600 if mark.read_text() == "x" else 0)
        return len(mark.read_text())

    assert TogetherLauncher(workers=2).run(die_once) == [2, 2]


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_is_quoted(spark: Any) -> None:
    def die(seat: Seat) -> None:
        if seat.rank == 0:
            time.sleep(60)
        sys.stdout.write("Out of the memory that it was given\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDiedError, match=r"(?s)^Worker 1 on .* signal 9.*Out of the memory that it"):
        TogetherLauncher(workers=2).run(die)


class Awkward(Exception):  # noqa: N818 - it is only raised here
    """An error that cannot be made anew from what it was pickled as."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


@pytest.mark.slow
def test_an_error_that_cannot_travel_arrives_as_its_traceback(spark: Any) -> None:
    def fail(seat: Seat) -> None:
        raise Awkward(7, reason="The scanner is on fire")

    with pytest.raises(RuntimeError, match=r"(?s)In the worker.*7: The scanner is on fire"):
        TogetherLauncher(workers=1).run(fail)


def test_a_missing_permission_is_no_death(spark: Any, tmp_path: Path) -> None:
    def fail(seat: Seat) -> None:
        with (tmp_path / "starts").open("a") as starts:
            starts.write("x")
        raise PermissionError("You may not write below /models.")

    with pytest.raises(PermissionError, match="below /models"):
        TogetherLauncher(workers=1).run(fail)
    assert (tmp_path / "starts").read_text() == "x"


def test_a_stranger_is_not_heard_and_holds_up_nobody(spark: Any, caplog: pytest.LogCaptureFixture) -> None:
    with Ear(spark.sparkContext.getConf()) as ear, socket.create_connection(ear.address) as silent:
        with pytest.raises(AuthenticationError):
            Client(ear.address, authkey=b"a guess")
        with caplog.at_level(logging.INFO, logger="brain_mri"):
            with Client(ear.address, authkey=ear.key) as worker:
                worker.send(("line", 1, 0, "heard"))
            deadline = time.monotonic() + 30
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)
        assert caplog.messages == ["heard"]
        assert silent.fileno() >= 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(ear.address, 5)


@pytest.mark.slow
def test_nothing_of_the_orders_stays_behind(spark: Any, tmp_path: Path) -> None:
    def fail(seat: Seat) -> None:
        (tmp_path / str(seat.rank)).write_text(sys.argv[-1])
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        if seat.rank == 1:
            raise ValueError("Enough.")
        time.sleep(600)

    with pytest.raises(ValueError, match="Enough"):
        TogetherLauncher(workers=2).run(fail)
    folders = [Path(mark.read_text()) for mark in tmp_path.iterdir()]
    deadline = time.monotonic() + 30
    while any(folder.exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(folder.exists() for folder in folders)
