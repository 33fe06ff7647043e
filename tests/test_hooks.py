"""What the hooks see to before a run, and what they leave when it ends at the worst moment."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, DatasetError

from brain_mri.datasets import CheckpointStore, CheckpointStoreDataset
from brain_mri.hooks import ProjectHooks, StaleOutputsError
from brain_mri.pipeline_registry import register_pipelines
from brain_mri.spark.session import MasterUnreachableError
from brain_mri.storage.lock import RunLock
from brain_mri.storage.provenance import Provenance
from tests.cluster_runs import Command, sentence, wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
NOBODY = "spark://127.0.0.1:1"
"""A master where nothing listens."""
Run = Callable[..., None]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def run(tmp_path: Path, make_scans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the first node of the project: `run(seed=1, killed_after_saving="source_files", resume=True)`."""
    source = make_scans(images=12)
    monkeypatch.setenv("BRAIN_MRI_STORAGE", str(tmp_path / "storage"))
    bootstrap_project(REPOSITORY)
    record = ProjectHooks.after_dataset_saved

    def start(*, seed: int = 1, killed_after_saving: str = "", resume: bool = False) -> None:
        @hook_impl
        def after_dataset_saved(self: ProjectHooks, dataset_name: str, data: Any, node: Any) -> None:
            if dataset_name == killed_after_saving:
                raise Killed
            record(self, dataset_name, data, node)

        monkeypatch.setattr(ProjectHooks, "after_dataset_saved", after_dataset_saved)
        parameters = {"ingestion": {"source": str(source), "seed": seed}}
        with KedroSession.create(REPOSITORY, runtime_params=parameters) as session:
            options: dict[str, Any] = {"node_names": ["list_scans"], "only_missing_outputs": resume}
            session.run(**options)

    return start


def test_an_output_that_was_saved_and_not_yet_recorded_is_built_upon(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(killed_after_saving="source_files")
    files = tmp_path / "storage" / "02_intermediate" / "source_files.parquet"
    assert files.is_file()
    assert not files.with_name("source_description.json").exists()
    run(resume=True)
    assert files.with_name("source_description.json").exists()


def test_an_output_that_replaced_another_and_was_not_yet_recorded_passes_for_neither(run: Run) -> None:
    run(seed=1)
    with pytest.raises(Killed):
        run(seed=2, killed_after_saving="source_files")
    for seed in (1, 2):
        with pytest.raises(StaleOutputsError, match="source_files"):
            run(seed=seed, resume=True)
    run(seed=2)
    run(seed=2, resume=True)


def test_a_dead_spark_master_is_said_before_anything_is_made(
    make_scans: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "storage"
    run = Command(
        [
            sys.executable,
            "-m",
            "kedro",
            "run",
            "--env=cluster",
            f"--params=ingestion.source={make_scans(12)}",
        ],
        REPOSITORY,
        {**os.environ, "SPARK_MASTER": NOBODY, "BRAIN_MRI_HDFS_STORAGE": root.as_uri()},
    )
    wait_until(lambda: run.output, run, "it logs something")
    began, started = time.monotonic(), set()
    while run.poll() is None:
        with suppress(psutil.NoSuchProcess):
            started |= {child.name() for child in psutil.Process(run.pid).children(recursive=True)}
        assert time.monotonic() - began < 30, run.output
    assert run.returncode == 1
    assert sentence(run.output).startswith(
        f"Spark's master {NOBODY} does not answer (127.0.0.1:1: Connection"
    )
    assert "java" not in started
    assert [path.name for path in root.iterdir()] == []


def test_a_source_that_tasks_would_pack_needs_the_master_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe("/scans/glioma/1.png", b"no image")
    monkeypatch.setenv("SPARK_MASTER", NOBODY)
    monkeypatch.setenv("BRAIN_MRI_HDFS_STORAGE", tmp_path.as_uri())
    bootstrap_project(REPOSITORY)
    parameters = {"ingestion": {"source": "memory:///scans"}}
    with (
        KedroSession.create(REPOSITORY, env="cluster", runtime_params=parameters) as session,
        pytest.raises(MasterUnreachableError, match=NOBODY),
    ):
        session.run(node_names=["list_scans"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by_parameter", [True, False])
def test_a_source_on_hdfs_is_looked_for_on_the_cluster_that_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_parameter: bool
) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"environment": {"HADOOP_CONF_DIR": str(tmp_path)}}))
    monkeypatch.setenv("BRAIN_MRI_CLUSTER", str(tmp_path))
    monkeypatch.setenv("BRAIN_MRI_DATA", "" if by_parameter else "hdfs:///scans")
    for name in ("HADOOP_CONF_DIR", "PYSPARK_PYTHON"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)
    bootstrap_project(REPOSITORY)
    parameters = {"ingestion": {"source": "hdfs:///scans"}} if by_parameter else {}
    with KedroSession.create(REPOSITORY, runtime_params=parameters) as session:
        session.load_context()
    assert os.environ["HADOOP_CONF_DIR"] == str(tmp_path)


def test_a_run_whose_tree_cannot_be_shown_gives_the_lock_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = ProjectHooks()
    hooks._storage, hooks._lock = str(tmp_path / "gone"), RunLock(str(tmp_path))
    hooks._lock.acquire()
    with caplog.at_level(logging.WARNING, "brain_mri"):
        hooks.after_pipeline_run(register_pipelines()["ingestion"])
    assert "gone cannot be shown" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_of_other_scans_does_not_pass_for_fresh(
    tmp_path: Path, make_scans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint of an output does not know which scans a source was added to."""
    monkeypatch.setenv("BRAIN_MRI_STORAGE", str(tmp_path / "storage"))
    bootstrap_project(REPOSITORY)
    provenance = Provenance(str(tmp_path / "storage"))

    def ingest(seed: int, *, append: bool = False) -> None:
        source = str(make_scans(images=60, seed=seed))
        parameters = {"ingestion": {"source": source, "append": append}}
        with KedroSession.create(REPOSITORY, runtime_params=parameters) as session:
            session.run(pipeline_names=["ingestion"])

    ingest(1)
    ingest(2, append=True)
    provenance.record("classifier", "of 1 and 2")
    ingest(2, append=True)
    assert provenance.recorded("classifier") == "of 1 and 2", "nothing has changed"
    ingest(3)
    ingest(2, append=True)
    assert provenance.recorded("classifier") is None
    assert provenance.recorded("manifest") is not None


def test_checkpoints_end_with_the_publication_of_a_version(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "checkpoints"))
    hooks = ProjectHooks()
    hooks._catalog = DataCatalog(
        {"checkpoints": CheckpointStoreDataset(filepath=str(tmp_path / "checkpoints"))}
    )
    store.save("state-01-0001.npz", b"state")
    for name, left in (("training_log", ["state-01-0001.npz"]), ("classifier", [])):
        hooks.after_dataset_saved(name, None, None)  # type: ignore[arg-type]  # the node does not matter
        assert store.names() == left


@pytest.mark.parametrize(("distribution", "asked"), [("none", False), ("synchronous", True)])
def test_training_in_tasks_needs_the_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, asked: bool
) -> None:
    monkeypatch.setenv("SPARK_MASTER", NOBODY)
    monkeypatch.setenv("BRAIN_MRI_HDFS_STORAGE", tmp_path.as_uri())
    bootstrap_project(REPOSITORY)
    parameters = {"training": {"distribution": distribution}}
    expected = MasterUnreachableError if asked else DatasetError  # there is nothing to train on
    with (
        KedroSession.create(REPOSITORY, env="cluster", runtime_params=parameters) as session,
        pytest.raises(expected),
    ):
        session.run(pipeline_names=["training"])
