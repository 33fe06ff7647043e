"""A job that no executor works on: given up where the cluster is gone, waited for where it is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from brain_mri.spark import watch
from brain_mri.spark.failures import SparkJobError, explained
from brain_mri.spark.session import MasterUnreachableError

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(watch, "PATIENCE", 0.5)
    monkeypatch.setattr(watch, "_PAUSE", 0.1)
    yield
    monkeypatch.setattr(watch, "_waits", lambda _: 1 / 0)  # as if the session had ended
    time.sleep(0.5)


def sleep(spark: Any, seconds: float) -> list[Any]:
    """A job; in a local session there is no executor but the driver itself."""
    found: list[Any] = spark.sparkContext.parallelize([seconds], 1).map(time.sleep).collect()
    return found


def test_a_job_is_given_up_when_no_master_answers(
    spark: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        raise MasterUnreachableError("Spark's master spark://gone:7077 does not answer.")

    watch.watch_cluster(spark.sparkContext, ask)
    started = time.monotonic()
    with pytest.raises(SparkJobError, match=r"its cluster is gone.*--only-missing-outputs"), explained():
        sleep(spark, 60)
    assert time.monotonic() - started < 30
    assert "spark://gone:7077 does not answer. The run has no executor left" in caplog.text
    monkeypatch.setattr(watch, "PATIENCE", 60.0)
    assert sleep(spark, 0) == [None], "the session itself lives on"


def test_a_job_that_waits_for_its_turn_is_told_so_once(spark: Any, caplog: pytest.LogCaptureFixture) -> None:
    watch.watch_cluster(spark.sparkContext, lambda: None)
    with caplog.at_level(logging.WARNING):
        assert sleep(spark, 3) == [None]
    assert caplog.text.count("No executor works for this run") == 1
