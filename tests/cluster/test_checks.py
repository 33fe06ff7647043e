"""Every step before a run has a tick or a cross, and steps that need a failed one are not tried."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from brain_mri.check import Check
from brain_mri.cluster.checks import _Examination, run_cluster_checks
from brain_mri.cluster.environment import Environment
from brain_mri.cluster.executors import PACKAGES, Answer, answer_here
from brain_mri.cluster.health import HdfsHealth, WorkersHealth
from brain_mri.cluster.steps import Step, run_steps, within
from tests.clusters import Cluster

GIB = 2**30
HEALTHY = HdfsHealth(
    namenode_http="127.0.0.1:9870",
    hadoop_version="3.5.0",
    safe_mode=False,
    safe_mode_reason="",
    live_datanodes=3,
    dead_datanodes=0,
    capacity_bytes=100 * GIB,
    used_bytes=GIB,
    free_bytes=50 * GIB,
    missing_blocks=0,
    corrupt_blocks=0,
    under_replicated_blocks=0,
)

WORKERS = WorkersHealth(
    manager="spark",
    manager_http="127.0.0.1:8080",
    manager_version="4.3.0",
    live_workers=2,
    dead_workers=0,
    cores=4,
    used_cores=0,
    memory_bytes=6 * GIB,
    used_memory_bytes=0,
)


def fail() -> str:
    raise RuntimeError("is down")


def test_a_step_is_not_tried_where_what_it_needs_failed_or_was_not_tried() -> None:
    checks = run_steps(
        [
            Step("A", fail, "start it"),
            Step("B", lambda: "fine", ""),
            Step("C", lambda: "fine", "", ("B", "A")),
            Step("D", lambda: "fine", "", ("C",)),
        ]
    )
    assert [check.ok for check in checks] == [False, True, None, None]
    assert [check.found for check in checks] == [
        "is down", "fine", "not tried; it needs: A", "not tried; it needs: C",
    ]  # fmt: skip


def test_waiting_ends_with_what_has_not_happened() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^No executor has answered within 0 s$"):
        within(lambda: time.sleep(60), "No executor has answered", seconds=0.1)
    assert time.monotonic() - start < 10
    assert within(lambda: 3, "") == 3
    with pytest.raises(RuntimeError, match="is down"):
        within(fail, "")


def test_an_environment_that_cannot_be_loaded_is_the_first_cross() -> None:
    def load() -> Environment:
        return fail()  # type: ignore[return-value]  # it raises

    first, *others = run_cluster_checks(load, lambda _: None)
    assert (first.name, first.ok, first.found) == ("Configuration", False, "is down")
    assert "HADOOP_CONF_DIR" in first.remedy
    assert {check.ok for check in others} == {None}


@pytest.mark.parametrize(
    ("changes", "step", "found"),
    [
        ({}, None, ""),
        ({"safe_mode": True, "safe_mode_reason": "Safe mode is ON."}, "Safe mode", "Safe mode is ON."),
        ({"live_datanodes": 1, "dead_datanodes": 2}, "DataNodes", "1 live, 2 dead; expected 2 or more"),
        ({"missing_blocks": 4}, "Blocks", "4 missing, 0 corrupt"),
        ({"corrupt_blocks": 5}, "Blocks", "0 missing, 5 corrupt"),
        ({"free_bytes": 3 * GIB}, "Free space", "3.0 GiB, expected 4 GiB for 2 copies"),
    ],
)
def test_each_trouble_of_hdfs_is_one_cross(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], step: str | None, found: str
) -> None:
    """The judgement alone: what the NameNode said is given, storage is a folder and Spark is out of reach."""
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>dfs.replication</name><value>2</value></property></configuration>"
    )
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    health = HdfsHealth(**{**asdict(HEALTHY), **changes})
    monkeypatch.setattr("brain_mri.cluster.checks.hdfs_health", lambda _: health)
    environment = Environment(str(tmp_path / "data"), "spark://127.0.0.1:1", "")
    checks = {check.name: check for check in run_cluster_checks(lambda: environment, lambda _: None)}
    crosses = [name for name, check in checks.items() if check.ok is False]
    assert crosses == [*([step] if step else []), "Spark master"]
    assert "127.0.0.1:1: Connection refused" in checks["Spark master"].found
    assert checks["Spark session"].ok is None
    if step:
        assert found in checks[step].found
        assert checks[step].remedy


@pytest.mark.parametrize(("used", "ok"), [(3, True), (4, False)])
def test_a_master_without_a_free_core_is_a_cross(
    monkeypatch: pytest.MonkeyPatch, used: int, ok: bool
) -> None:
    monkeypatch.setattr("brain_mri.cluster.checks.check_master", lambda _: None)
    health = replace(WORKERS, used_cores=used)
    monkeypatch.setattr("brain_mri.cluster.checks.workers_health", lambda *_: health)
    environment = Environment("data", "spark://127.0.0.1:7077", "")
    checks = {check.name: check for check in run_cluster_checks(lambda: environment, lambda _: None)}
    assert checks["Spark master"].ok is ok
    assert f"2 workers with 4 cores, {4 - used} free" in checks["Spark master"].found
    assert "end what holds the cores" in checks["Spark master"].remedy


HERE = {"python": "3.11", "numpy": "2.4.0"}


def judge(step: str, *answers: Answer, **state: Any) -> Check:
    """What one late step makes of what executors, Spark and HDFS answered; all that it needs has passed."""
    examination = _Examination(lambda: state["_environment"], lambda _: None)
    found = {
        "_answers": list(answers),
        "_environment": Environment("hdfs:///data", "spark://127.0.0.1:7077", ""),
        "_hdfs": HEALTHY,
        "_workers": WORKERS,
        **state,
    }
    for name, value in found.items():
        setattr(examination, name, value)
    (chosen,) = (entry for entry in examination.steps() if entry.name == step)
    (check,) = run_steps([replace(chosen, needs=())])
    return check


@pytest.mark.parametrize(
    ("versions", "crosses"),
    [
        (HERE, None),
        ({**HERE, "numpy": "1.26.4"}, "two has numpy 1.26.4, the driver 2.4.0"),
        ({**HERE, "numpy": "missing: No module"}, "two has numpy missing: No module, the driver 2.4.0"),
        ({"python": "3.11"}, "two has numpy None, the driver 2.4.0"),
        ({**HERE, "python": "3.12"}, "two has python 3.12, the driver 3.11"),
    ],
)
def test_an_executor_with_other_packages_is_a_cross_that_names_it(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], crosses: str | None
) -> None:
    monkeypatch.setattr("brain_mri.cluster.checks.answer_here", lambda: Answer("here", "", HERE, ""))
    check = judge("Same packages", Answer("one", "/1", HERE, ""), Answer("two", "/2", versions, ""))
    assert check.ok is (crosses is None)
    assert check.found == (crosses or "python 3.11, numpy 2.4.0")


def test_an_executor_that_cannot_write_is_a_cross_with_its_reason() -> None:
    fine = Answer("one", "/1", HERE, "")
    assert judge("Executors on storage", fine).found == "write, read and delete below hdfs:///data"
    check = judge("Executors on storage", fine, Answer("two", "/2", HERE, "HADOOP_CONF_DIR is not set"))
    assert (check.ok, check.found) == (False, "two: HADOOP_CONF_DIR is not set")
    assert "spark.executorEnv.HADOOP_CONF_DIR" in check.remedy


def test_executors_on_another_hdfs_are_a_cross_with_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://ours:8020</value></property>"
        "</configuration>"
    )
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    same = Answer("one", "/1", HERE, "", "hdfs://ours:8020")
    assert judge("Executors on storage", same).ok
    check = judge("Executors on storage", same, Answer("two", "/2", HERE, "", "hdfs://theirs:8020"))
    assert not check.ok
    assert "hdfs://ours:8020 here" in check.found
    assert "two: hdfs://theirs:8020" in check.found


@pytest.mark.parametrize(
    ("hadoop", "workers", "ok"),
    [
        ("3.3.6", {"manager_version": "4.3.1"}, True),
        ("2.10.2", {}, False),
        ("3.5.0", {"manager_version": "4.2.0"}, False),
        ("3.5.0", {"manager_version": ""}, True),  # a master that does not say
        ("3.5.0", {"manager": "yarn", "manager_version": "3.4.1"}, True),
        ("3.5.0", {"manager": "yarn", "manager_version": "2.10.2"}, False),
    ],
)
def test_versions_that_do_not_fit_are_a_cross(hadoop: str, workers: dict[str, str], ok: bool) -> None:
    session = Mock(version="4.3.0")
    session._jvm.org.apache.hadoop.util.VersionInfo.getVersion.return_value = "3.5.0"
    cluster = replace(WORKERS, **workers)  # type: ignore[arg-type]  # names of strings only
    check = judge(
        "Versions", _session=session, _hdfs=replace(HEALTHY, hadoop_version=hadoop), _workers=cluster
    )
    assert check.ok is ok
    assert f"Hadoop 3.5.0 here, {hadoop} on the cluster" in check.found


def test_executors_that_do_not_answer_are_a_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Mock()
    monkeypatch.setattr("brain_mri.cluster.executors.SECONDS_FOR_ALL", 0)
    collected = session.sparkContext.parallelize.return_value.map.return_value.collect
    collected.return_value = [("one", "/1", HERE, "", "")]
    session.sparkContext.defaultParallelism = 2
    tracker = session.sparkContext._jsc.sc.return_value.statusTracker.return_value
    tracker.getExecutorInfos.return_value = [None, None, None]  # the driver and two executors
    check = judge("Executors", _session=session)
    assert (check.ok, check.found) == (False, "1 of 2 executors answer")
    tracker.getExecutorInfos.return_value = [None, None]
    assert judge("Executors", _session=session).found == "1 answer, on one"

    monkeypatch.setattr("brain_mri.cluster.checks.within", partial(within, seconds=0.1))
    collected.side_effect = lambda: time.sleep(60)
    check = judge("Executors", _session=session)
    assert (check.ok, check.found) == (False, "No executor has answered within 0 s")
    session.sparkContext.cancelAllJobs.assert_called_once()


def test_the_driver_itself_has_every_package_that_tasks_use() -> None:
    versions = answer_here().versions
    assert versions.keys() == {"python", *PACKAGES}
    assert not [name for name, version in versions.items() if version.startswith("missing")]


@pytest.mark.cluster
@pytest.mark.spark
def test_a_healthy_cluster_has_ticks_only(cluster: Cluster) -> None:
    answer = cluster.run("check")
    lines = answer.stdout.splitlines()
    assert lines[-1] == "All 13 checks passed."
    assert len([line for line in lines if line.startswith("✓ ")]) == 13
    assert "✓ Executors             2 answer, on " in answer.stdout
    assert cluster.addresses["spark_master"] in answer.stdout
    root = next(line for line in lines if "Write, read, delete" in line).split()[-1]
    assert ".tmp" not in cluster.fs("-ls", "-R", root)  # what was written for the check is gone


def administrate(cluster: Cluster, *words: str) -> str:
    """Run Hadoop's `dfsadmin`, with the Java and the classes of the NameNode."""
    command = cluster.processes["namenode"].cmdline()
    main = next(number for number, word in enumerate(command) if word.endswith(".NameNode"))
    command = [*command[:main], "org.apache.hadoop.hdfs.tools.DFSAdmin", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.cluster
@pytest.mark.slow
def test_safe_mode_and_a_dead_namenode_are_crosses_with_a_remedy(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster("--datanodes", "1", "--replication", "1", "--workers", "1")
    administrate(cluster, "-safemode", "enter")
    assert cluster.namenode("NameNodeInfo")["Safemode"]
    answer = cluster.run("check", check=False)
    assert answer.returncode == 1
    assert "✗ Safe mode             on, nothing can be written" in answer.stdout
    assert "→ It ends by itself once enough DataNodes have reported" in answer.stdout
    assert "– Spark session         not tried; it needs: Write, read, delete" in answer.stdout

    cluster.kill("namenode")
    answer = cluster.run("check", check=False)
    assert answer.returncode == 1
    assert (
        f"✗ NameNode              No NameNode answers ({cluster.addresses['namenode_http']}" in answer.stdout
    )
    assert "→ Start it (here: `kedro cluster up`)." in answer.stdout
    assert "✓ Spark master" in answer.stdout
