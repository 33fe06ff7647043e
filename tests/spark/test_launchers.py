"""The same function runs in processes and as Spark tasks."""

from __future__ import annotations

import os
from typing import Any

import pytest

from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher


def _where(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def _fail(number: int) -> int:
    raise OSError(f"item {number} is broken")


def test_processes_do_the_work_elsewhere_and_lose_nothing() -> None:
    results = list(ProcessLauncher(workers=2).map(_where, range(20)))
    assert sorted(square for square, _ in results) == [number * number for number in range(20)]
    assert os.getpid() not in {process for _, process in results}


def test_an_error_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(OSError, match="is broken"):
        list(ProcessLauncher(workers=2).map(_fail, [1, 2, 3]))


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(ProcessLauncher(workers=2).map(_where, [])) == []


@pytest.mark.spark
def test_spark_tasks_do_the_same(spark: Any) -> None:
    results = list(SparkLauncher(spark).map(lambda number: (number * number, os.getpid()), range(6)))
    assert sorted(square for square, _ in results) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in results}
    assert list(SparkLauncher(spark).map(_where, [])) == []
