"""One session a process, started late, on the master that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from brain_mri.spark import session

pytestmark = pytest.mark.spark


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    """The settings in force, put back afterwards."""
    before = dict(session._settings)
    yield before
    session.configure(before)


def test_tasks_run_in_the_python_that_has_our_packages(spark: Any) -> None:
    import sys

    def where(batches: Any) -> Any:
        import pyarrow as pa

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.executable], "process": [os.getpid()]})

    [row] = spark.range(1, numPartitions=1).mapInArrow(where, "python string, process long").collect()
    assert row.python == sys.executable
    assert row.process != os.getpid()


def test_a_session_on_another_master_is_refused_by_both_names(spark: Any, settings: dict[str, str]) -> None:
    session.configure({**settings, "spark.master": "spark://elsewhere:7077"})
    with pytest.raises(
        session.WrongSessionError, match=r"runs on local\[\*\] .* asks for spark://elsewhere:7077"
    ):
        session.get_session()


def test_settings_are_written_as_spark_writes_them(settings: dict[str, str]) -> None:
    session.configure({"spark.ui.enabled": False, "spark.sql.shuffle.partitions": 8})
    assert session._settings == {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "8"}
