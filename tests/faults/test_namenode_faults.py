"""The NameNode is killed, or does not let a run write: the run goes on, or says in one sentence why not."""

from __future__ import annotations

import time

import pytest

from tests.cluster_runs import Project, finish, results, sentence
from tests.faults.storage import TABLES, Storage

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.slow]

SECONDS = 60
"""A run that cannot use its storage ends after some 10 s; a busy machine takes longer."""


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
    run.wait(300)
    started = storage.cluster.namenode("NameNodeInfo")["NNStartedTimeInMillis"] / 1000
    assert hit.at < started
    if run.returncode:  # on a busy machine the NameNode may take longer than runs wait for it
        print(sentence(run.output))  # noqa: T201 - which of the two happened
        finish(project.run(words, "--only-missing-outputs", root=new_root))
    assert storage.modified("/new/05_model_input/model_inputs_test.parquet/_SUCCESS") > started
    assert results(new_root, TABLES) == undisturbed


def ended_in_time(project: Project, root: str, **variables: str) -> str:
    """The sentence with which a run ends, which must not take long."""
    began = time.monotonic()
    run = project.run("--pipelines=ingestion", root=root, **variables)
    output = finish(run, status=1, timeout=SECONDS)
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s: {sentence(output)}")  # noqa: T201 - a figure for people
    return sentence(output)


def test_a_run_on_an_hdfs_that_is_down_says_so_at_once(
    storage: Storage, project: Project, new_root: str
) -> None:
    address = storage.cluster.addresses["namenode"]
    storage.cluster.kill("namenode")
    said = ended_in_time(project, new_root)
    assert said.startswith(f"HDFS is not running at {address}")
    assert "kedro cluster up" in said


def test_a_run_on_an_hdfs_in_safe_mode_says_so_at_once(
    storage: Storage, project: Project, new_root: str
) -> None:
    storage.administrate("-safemode", "enter")
    try:
        said = ended_in_time(project, new_root)
    finally:
        storage.administrate("-safemode", "leave")
    assert "is in safe mode" in said
    assert "cannot be written" in said


def test_a_run_in_a_folder_of_someone_else_says_so_at_once(
    storage: Storage, project: Project, root: str
) -> None:
    said = ended_in_time(project, root, HADOOP_USER_NAME="eve")
    assert "does not permit this" in said
    assert "user=eve" in said
