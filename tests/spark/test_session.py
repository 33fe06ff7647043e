"""One session a process, started late, on the master that was asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark import session
from tests.clusters import Cluster


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    """The settings in force, put back afterwards."""
    before, filesystem = dict(session._settings), session._hadoop.get("fs.defaultFS")
    yield before
    session.configure(before, filesystem)


@pytest.mark.spark
def test_tasks_run_in_the_python_that_has_our_packages(spark: Any) -> None:
    def where(batches: Any) -> Any:
        import pyarrow as pa

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.executable], "process": [os.getpid()]})

    [row] = spark.range(1, numPartitions=1).mapInArrow(where, "python string, process long").collect()
    assert row.python == sys.executable
    assert row.process != os.getpid()


@pytest.mark.spark
def test_a_session_on_another_master_is_refused_by_both_names(spark: Any, settings: dict[str, str]) -> None:
    session.configure({**settings, "spark.master": "spark://elsewhere:7077"})
    with pytest.raises(
        session.WrongSessionError, match=r"runs on local\[\*\] .* asks for spark://elsewhere:7077"
    ):
        session.get_session()


@pytest.mark.spark
def test_a_session_on_another_default_filesystem_is_refused_by_both_names(
    spark: Any, settings: dict[str, str]
) -> None:
    session.configure(settings, "hdfs://namenode:8020")
    with pytest.raises(
        session.WrongSessionError, match=r"default filesystem is file:///, but .* is on hdfs://namenode:8020"
    ):
        session.get_session()
    session.configure(settings, "file:///")
    assert session.get_session().sparkContext is spark.sparkContext


@pytest.mark.parametrize("master", ["spark://127.0.0.1:1", "spark://127.0.0.1:2,127.0.0.1:1", "yarn"])
def test_a_master_that_does_not_answer_is_said_at_once(
    master: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "<name>yarn.resourcemanager.address</name><value>127.0.0.1:1</value>"
    (tmp_path / "yarn-site.xml").write_text(
        f"<configuration><property>{address}</property></configuration>", encoding="utf-8"
    )
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(
        session.MasterUnreachableError, match=r"127\.0\.0\.1:1: Connection refused.*cluster up"
    ):
        session.check_master(master)
    assert time.monotonic() - start < 15


def test_of_several_masters_one_that_answers_is_enough() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        session.check_master(f"spark://127.0.0.1:1,127.0.0.1:{port}")
        session.check_master(f"k8s://https://127.0.0.1:{port}")
    session.check_master("local[*]")


@pytest.mark.cluster
@pytest.mark.spark
def test_a_session_on_a_cluster_makes_the_event_log_and_knows_its_filesystem(in_cluster: Cluster) -> None:
    """In a process of its own: this one may have a session already."""
    program = (
        "from brain_mri.spark import session\n"
        "from brain_mri.storage.hadoop import default_filesystem\n"
        f"settings = {{'spark.master': {in_cluster.environment['SPARK_MASTER']!r}, 'spark.cores.max': 1,\n"
        "  'spark.eventLog.enabled': True, 'spark.eventLog.dir': 'hdfs:///user/session/spark-events'}\n"
        "session.configure(settings, default_filesystem())\n"
        "print(session.get_session().sparkContext.applicationId)\n"
        "session.configure(settings, 'hdfs://elsewhere:8020')\n"
        "try:\n"
        "    session.get_session()\n"
        "except session.WrongSessionError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False
    )
    assert answer.returncode == 0, answer.stderr
    application, refusal = answer.stdout.splitlines()
    assert in_cluster.addresses["namenode"] in refusal
    assert "hdfs://elsewhere:8020" in refusal
    assert application in in_cluster.fs("-ls", "-R", "/user/session/spark-events")


def test_settings_are_written_as_spark_writes_them(settings: dict[str, str]) -> None:
    session.configure({"spark.ui.enabled": False, "spark.sql.shuffle.partitions": 8})
    assert session._settings == {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "8"}
