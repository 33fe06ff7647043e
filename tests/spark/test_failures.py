"""One sentence out of Spark's error texts, met on a real session and given as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark.failures import SparkJobError, explained, find_sentence


def test_a_file_that_no_node_gives_is_named() -> None:
    text = (
        "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file "
        "hdfs://127.0.0.1:8020/user/ada/scans.parquet/part-00000.parquet. SQLSTATE: KD001"
    )
    sentence = find_sentence(text)
    assert sentence is not None
    assert "hdfs://127.0.0.1:8020/user/ada/scans.parquet/part-00000.parquet cannot be read" in sentence


def test_a_file_on_an_hdfs_that_is_gone_is_not_called_damaged() -> None:
    text = "[FAILED_READ_FILE.NO_HINT] Error while reading hdfs://nn:8020/a.parquet. SQLSTATE"
    stack = "java.net.ConnectException: Call From vm/127.0.0.1 to nn:8020 failed on connection exception"
    sentence = find_sentence(text, stack)
    assert sentence is not None
    assert "HDFS at nn:8020 does not answer" in sentence
    assert "damaged" not in sentence


def test_what_tells_nothing_by_itself_is_left_whole() -> None:
    assert find_sentence("Job aborted due to stage failure: who knows") is None


def _refuse(batches: Iterator[Any]) -> Iterator[Any]:
    raise OSError("the disk is full\nfree some of it")
    yield from batches


def _fail(batches: Iterator[Any]) -> Iterator[Any]:
    raise KeyError("a fault of the program")
    yield from batches


@pytest.mark.spark
def test_errors_of_tasks(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(SparkJobError, match=r"^the disk is full\nfree some of it$"), explained():
        spark.range(3).mapInArrow(_refuse, "id long").collect()
    with pytest.raises(Exception, match="Traceback") as fault, explained():
        spark.range(3).mapInArrow(_fail, "id long").collect()
    assert not isinstance(fault.value, SparkJobError), "a fault of the program keeps its stack"
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 this is no parquet PAR1")
    with pytest.raises(SparkJobError, match=r"part-0\.parquet cannot be read"), explained():
        spark.read.schema("a long").parquet(tmp_path.as_uri()).collect()
