"""The NameNode is killed, or does not let a run write: the run goes on, or says in one sentence why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster_runs import Project, finish, refused, results, sentence
from tests.faults.storage import TABLES, Storage, frozen

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.slow]

SURVIVED = 15
"""Seconds without a NameNode that a run must get over; it waits for 25, and may sleep at the end of them."""


@pytest.mark.parametrize("moment", ["/02_intermediate/scans.parquet/", "/05_model_input/"])
def test_a_namenode_killed_in_the_middle_of_a_run_is_waited_for(
    storage: Storage,
    project: Project,
    new_root: str,
    undisturbed: dict[str, str],
    moment: str,
) -> None:
    words = "--pipelines=ingestion,preprocessing"
    run = project.run(words, root=new_root)
    with storage.caught(moment, run) as hit:
        storage.cluster.kill("namenode")
    storage.cluster.up()
    away = time.time() - hit.at
    run.wait(300)
    print(f"{away:.1f} s without a NameNode: exit status {run.returncode}")  # noqa: T201 - a figure for people
    started = storage.cluster.namenode("NameNodeInfo")["NNStartedTimeInMillis"] / 1000
    assert hit.at < started
    if run.returncode:  # on a busy machine the NameNode may take longer than runs wait for it
        assert away > SURVIVED, run.output
        assert "kedro cluster" in sentence(run.output)
        finish(project.run(words, "--only-missing-outputs", root=new_root))
    assert storage.modified("/new/05_model_input/model_inputs_test.parquet/_SUCCESS") > started
    assert results(new_root, TABLES) == undisturbed


def test_a_run_on_an_hdfs_that_is_down_says_so_at_once(
    storage: Storage, project: Project, new_root: str
) -> None:
    address = storage.cluster.addresses["namenode"]
    storage.cluster.kill("namenode")
    said = refused(project.run(root=new_root))
    assert said.startswith(f"HDFS is not running at {address}")
    assert "kedro cluster up" in said


def test_a_run_on_an_hdfs_in_safe_mode_says_so_at_once(
    storage: Storage, project: Project, new_root: str
) -> None:
    with safe_mode(storage):
        said = refused(project.run(root=new_root))
    assert "is in safe mode" in said
    assert "cannot be written" in said


@contextmanager
def safe_mode(storage: Storage) -> Iterator[None]:
    storage.administrate("-safemode", "enter")
    try:
        yield
    finally:
        storage.administrate("-safemode", "leave")


def test_a_run_on_an_hdfs_that_hangs_says_so_at_once(
    storage: Storage, project: Project, new_root: str
) -> None:
    address = storage.cluster.addresses["namenode"]
    with frozen(storage.cluster.processes["namenode"]):
        said = refused(project.run(root=new_root))
    assert said.startswith(f"HDFS at {address} does not answer")


def test_a_run_in_a_read_only_snapshot_says_so_at_once(storage: Storage, project: Project) -> None:
    storage.ask("/kept/data", "MKDIRS", "PUT")
    storage.administrate("-allowSnapshot", "/kept")
    storage.cluster.fs("-createSnapshot", "/kept", "then")
    said = refused(project.run(root="hdfs:///kept/.snapshot/then/data"))
    assert "does not permit this on hdfs:///kept/.snapshot/then/data" in said
    assert "read-only snapshot" in said


def test_a_run_in_a_folder_of_someone_else_says_so_at_once(
    storage: Storage, project: Project, root: str
) -> None:
    said = refused(project.run(root=root, HADOOP_USER_NAME="eve"))
    assert "does not permit this" in said
    assert "user=eve" in said
