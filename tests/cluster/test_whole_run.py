"""Whole runs on a cluster: what they leave, how they go on after a kill, and what they are equal to."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from brain_mri.cluster.connection import hadoop_user
from brain_mri.cluster.pages import fetch_text
from brain_mri.datasets.scores import Scores
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.storage.files import open_filesystem
from tests.cluster_runs import (
    SMALL,
    Project,
    events,
    finish,
    names_below,
    read,
    results,
    wait_until,
)
from tests.clusters import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.tensorflow]

OUTPUTS = {
    "02_intermediate": "manifest.parquet quarantine.parquet split_metadata.json scans.parquet/_SUCCESS",
    "05_model_input": "model_inputs_train.parquet/_SUCCESS model_inputs_validation.parquet/_SUCCESS "
    "model_inputs_test.parquet/_SUCCESS",
    "06_models": "trained_network.keras training_history.json model_metadata.json",
    "07_model_output": "predictions.parquet",
    "08_reporting": "metrics.json report.html confusion_matrix.png sample_grid.png exploration.json",
}
LEFTOVER = re.compile(r"/\.[^/]+\.(tmp|old)(/|$)")
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of phantoms on the driver's disk, with copies and damaged files among them."""
    folder = tmp_path_factory.mktemp("source") / "scans"
    write_phantom_folder(folder, images=160, seed=5, processes=1)
    return folder


@pytest.fixture(scope="module")
def project(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project as its users have it: `kedro cluster up` was all that they did."""
    project = Project(tmp_path_factory.mktemp("project"), cluster.base_environment)
    with pytest.MonkeyPatch.context() as patch:
        cluster.use(patch)
        yield project


@pytest.fixture(scope="module")
def said(project: Project, source: Path) -> str:
    """What an undisturbed run says, whose storage root is the one that the environment has by default."""
    before = names_in(project.folder)
    assert "data" not in before
    output = finish(project.run(parameters=f"ingestion.source={source},{SMALL}"))
    assert names_in(project.folder) - before <= {".viz"}, "a run on a cluster wrote to the local disk"
    return output


@pytest.fixture(scope="module")
def finished(said: str) -> str:
    """The storage root of that run."""
    return f"hdfs:///user/{hadoop_user()}/brain_mri"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def parts(root: str) -> dict[str, list[tuple[str, list[int]]]]:
    """Name and row groups of every part of the model inputs."""
    summaries = {
        split: json.loads(read(root, f"05_model_input/model_inputs_{split}.parquet/_SUCCESS"))
        for split in SPLITS
    }
    return {
        split: [(part["name"], part["row_groups"]) for part in summary["parts"]]
        for split, summary in summaries.items()
    }


def test_a_whole_run_leaves_the_layered_tree_on_hdfs(finished: str, cluster: Cluster) -> None:
    folder = finished.removeprefix("hdfs://")
    listed = cluster.fs("-ls", "-R", folder)  # Hadoop's own shell
    paths = {line.split(maxsplit=7)[-1] for line in listed.splitlines()}
    expected = {f"{folder}/{layer}/{name}" for layer, names in OUTPUTS.items() for name in names.split()}
    assert expected <= paths
    assert re.search(rf"{folder}/06_models/classifier/[^/]+/checksums\.json", listed)
    assert not [path for path in paths if LEFTOVER.search(path)]
    assert f"{folder}/.run.lock" not in paths
    assert cluster.fs("-cat", f"{folder}/08_reporting/report.html").rstrip().endswith("</html>")

    metrics = json.loads(read(finished, "08_reporting/metrics.json"))
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics["preprocessing_images_per_second"] > 0


def test_a_whole_run_says_how_many_scans_it_sent_and_what_lies_where(said: str) -> None:
    assert re.search(r"Scans by class and split.*\n.*train +validation +test +all.*(\n.* MB){3}", said), said
    assert re.search(r"hdfs:\S+/brain_mri: \d+ files, .* MB\n.*├── 02_intermediate: ", said, re.DOTALL), said


def test_the_event_log_says_that_executors_of_the_cluster_did_the_work(
    finished: str, cluster: Cluster
) -> None:
    found = events(finished)
    properties = next(event for event in found if event["Event"] == "SparkListenerEnvironmentUpdate")
    assert (
        dict(properties["Spark Properties"])["spark.master"] == f"spark://{cluster.addresses['spark_master']}"
    )
    executors = {event["Executor ID"] for event in found if event["Event"] == "SparkListenerExecutorAdded"}
    assert executors == {"0", "1"}
    assert any(event["Event"] == "SparkListenerTaskEnd" for event in found)
    assert any(event["Event"] == "SparkListenerApplicationEnd" for event in found)


def test_a_driver_that_is_killed_while_tasks_write_is_resumed_to_the_same_results(
    finished: str, project: Project, source: Path
) -> None:
    root = f"{finished}-killed"
    words = f"ingestion.source={source},{SMALL}"
    run = project.run(root=root, parameters=words)
    train = f"{root}/05_model_input/model_inputs_train.parquet"

    def half_written() -> list[str]:
        return [name for name in names_below(train) if name.startswith(".part-")]

    wait_until(half_written, run, "a task writes model inputs")
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.output
    assert half_written()
    assert "_SUCCESS" not in names_below(train)
    assert json.loads(read(root, ".run.lock"))["pid"] == run.pid

    said = finish(project.run("--only-missing-outputs", root=root, parameters=words))
    assert f"Taking over the lock that process {run.pid} left" in said
    assert "Completed node: pack_scans" not in said, "what was complete is not made again"
    assert results(root) == results(finished)
    assert parts(root) == parts(finished)
    filesystem, path = open_filesystem(root)
    assert not [name for name in filesystem.find(path, withdirs=True) if LEFTOVER.search(name)]


@pytest.mark.slow
def test_a_source_on_hdfs_is_read_by_executors_with_the_same_results(
    finished: str, project: Project, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    shared = f"/user/{hadoop_user()}/source"
    cluster.fs("-put", str(source), shared)
    root = f"{finished}-from-hdfs"
    finish(project.run(root=root, parameters=f"ingestion.source=hdfs://{shared},{SMALL}"))
    assert results(root) == results(finished)
    jobs = [event for event in events(root) if event["Event"] == "SparkListenerJobStart"]
    packing = [job for job in jobs if "pack_block" in json.dumps(job["Properties"])]
    assert len(packing) >= 2, "the files were not packed by tasks"

    local = str(tmp_path / "storage")
    parameters = f"--params=ingestion.source=hdfs://{shared}"
    finish(project.start("run", "--pipelines=ingestion", parameters, BRAIN_MRI_STORAGE=local))
    assert results(local, ["ingestion"])["scans"] == results(finished, ["ingestion"])["scans"]


@pytest.mark.slow
def test_executors_score_a_folder_on_hdfs_as_this_machine_scores_its_own(
    finished: str, project: Project, cluster: Cluster, source: Path
) -> None:
    shared = f"/user/{hadoop_user()}/to-score"
    cluster.fs("-put", str(source), shared)
    finish(project.start("predict", f"hdfs://{shared}", "--env=cluster"))
    there = Scores(f"{finished}/07_model_output/scores.parquet").to_pandas().drop(columns="path")
    assert set(there["status"]) == {"scored", "refused"}

    output = f"{finished}/scores-of-this-machine.parquet"
    finish(project.start("predict", str(source), "--env=cluster", "--output", output))
    here = Scores(output).to_pandas()
    assert here.pop("path").str.startswith(str(source)).all()
    pd.testing.assert_frame_equal(there, here)

    jobs = [event for event in events(finished) if event["Event"] == "SparkListenerJobStart"]
    scoring = [job for job in jobs if "score_piece" in json.dumps(job["Properties"])]
    assert len(scoring) == 1, "tasks scored what lies on HDFS, and could not have read the other folder"


@pytest.mark.slow
def test_the_history_of_the_run_is_shown(finished: str, project: Project) -> None:
    # The cluster is shared: `kedro cluster check` of other tests is an application too.
    applications = {event["App ID"] for event in events(finished) if "App ID" in event}
    assert applications
    history = project.start("cluster", "history", "--no-open")
    wait_until(lambda: "Spark's history: http" in history.output, history, "it answers", timeout=120)
    address = re.search(r"http://\S+", history.output)
    assert address

    def is_shown() -> bool:
        with suppress(OSError):  # a busy machine lets a page wait
            shown = fetch_text(f"{address[0]}/api/v1/applications")
            return all(application in shown for application in applications)
        return False

    wait_until(is_shown, history, "the applications")
    history.terminate()
    assert history.wait(120) == 128 + signal.SIGTERM, history.output


@pytest.mark.slow
def test_a_local_run_makes_the_same(finished: str, project: Project, source: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "storage")
    parameters = f"--params=ingestion.source={source},{SMALL}"
    finish(project.start("run", parameters, BRAIN_MRI_STORAGE=root))
    assert results(root) == results(finished)
    assert parts(root) == parts(finished)


@pytest.mark.slow
def test_drawn_phantoms_lie_in_the_cache_and_not_in_the_project(
    finished: str, project: Project, tmp_path: Path
) -> None:
    parameters = "ingestion.phantom.images=120,preprocessing.image_size=64"
    words = ("--pipelines=ingestion,preprocessing",)
    root = f"{finished}-drawn"
    before = names_in(project.folder)
    cache = str(tmp_path / "cache")
    finish(project.run(*words, root=root, parameters=parameters, XDG_CACHE_HOME=cache))
    assert names_in(project.folder) == before
    drawn = [path for path in Path(cache, "brain-mri", "phantom").rglob("*") if path.is_file()]
    assert len(drawn) >= 120
    assert json.loads(read(root, "02_intermediate/split_metadata.json"))["source"]["synthetic"] is True
