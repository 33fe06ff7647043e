"""What computes is killed in the middle of its work: runs end as an undisturbed one does, or say why not."""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from brain_mri.cluster import daemons
from brain_mri.imaging.phantom import write_phantom_folder
from tests.cluster_runs import SMALL, Command, Project, end, events, finish, names_below, results, wait_until
from tests.clusters import Cluster, hosts_of
from tests.faults.computing import (
    assert_replaced,
    caught,
    final_status,
    get,
    kill_an_executor,
    wait_for_another,
)

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.tensorflow, pytest.mark.slow]

TABLES = ("ingestion", "preprocessing")
TABLES_ONLY = "--pipelines=ingestion,preprocessing"
WRITES_MODEL_INPUTS = "launchers.py"  # the source is read by this machine
EPOCH = " epoch"


@pytest.fixture(scope="module")
def small_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "scans"
    write_phantom_folder(folder, images=160, seed=5, processes=1)
    return folder


@pytest.fixture(scope="module")
def parameters(small_source: Path) -> str:
    return f"ingestion.source={small_source},{SMALL}"


@pytest.fixture(scope="module")
def undisturbed(own_cluster: Cluster, project: Project, parameters: str) -> dict[str, str]:
    """What a whole run makes that nothing disturbs."""
    own_cluster.mend()
    root = "hdfs:///undisturbed-whole"
    finish(project.run(root=root, parameters=parameters))
    with pytest.MonkeyPatch.context() as patch:
        own_cluster.use(patch)
        return results(root)


def tables_of(undisturbed: dict[str, str]) -> dict[str, str]:
    """The part of the results that ingestion and preprocessing make."""
    return {name: digest for name, digest in undisturbed.items() if name not in ("metrics", "predictions")}


def test_a_spark_worker_that_dies_in_the_middle_of_a_stage_costs_only_time(
    whole_cluster: Cluster, project: Project, parameters: str, undisturbed: dict[str, str]
) -> None:
    root = "hdfs:///worker-killed"
    run = project.run(TABLES_ONLY, root=root, parameters=parameters)
    hit = kill_an_executor(whole_cluster, run, WRITES_MODEL_INPUTS, with_worker=True)
    finish(run)
    workers = get(f"http://{whole_cluster.addresses['spark_master_http']}/json/")["workers"]
    assert sorted(worker["state"] for worker in workers)[:2] == ["ALIVE", "DEAD"]
    assert_replaced(hit, events(root))
    assert results(root, TABLES) == tables_of(undisturbed)
    assert not leftovers(root)


def test_a_yarn_container_that_is_killed_in_the_middle_of_a_stage_is_replaced(
    start_cluster: Callable[..., Cluster],
    parameters: str,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, cluster = "hdfs:///container-killed", start_cluster("--yarn")
    cluster.use(monkeypatch)
    project = Project(tmp_path / "project", cluster.base_environment)
    run = project.run(TABLES_ONLY, root=root, parameters=parameters)
    hit = kill_an_executor(cluster, run, WRITES_MODEL_INPUTS, with_worker=False)
    wait_for_another(cluster, run, hit)
    finish(run)
    logs = "".join(path.read_text() for path in cluster.folder.glob("logs/nodemanager-*.log"))
    assert hit.container
    assert re.search(rf"{hit.container} transitioned from RUNNING to EXITED_WITH_FAILURE", logs)
    found = events(root)
    assert final_status(cluster) == "SUCCEEDED"
    assert_replaced(hit, found)
    added = [event for event in found if event["Event"] == "SparkListenerExecutorAdded"]
    assert any(event["Timestamp"] > 1000 * hit.at for event in added), "no container took its place"
    assert results(root, TABLES) == tables_of(undisturbed), "YARN makes what a Spark cluster makes"
    assert not leftovers(root)


def test_a_driver_that_is_killed_again_and_again_ends_where_an_undisturbed_one_does(
    whole_cluster: Cluster, project: Project, parameters: str, undisturbed: dict[str, str]
) -> None:
    root, draw = "hdfs:///driver-killed", random.Random(4)
    places: list[str] = []  # what each killed run had completed last
    for _ in range(20):
        run = project.run("--only-missing-outputs", root=root, parameters=parameters)
        steps, delay = draw.randint(1, 3), draw.uniform(0, 2)
        trained = any(EPOCH in place for place in places)
        while run.poll() is None and not is_far_enough(run, steps, stop_in_training=not trained):
            time.sleep(0.02)
        time.sleep(0 if not trained and EPOCH in progress(run)[-1] else delay)
        run.kill()  # the process alone: its JVM and its tasks find out by themselves
        if run.wait() == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.output
        if places:
            assert "Taking over the lock that process" in run.output
        if ".run.lock" in names_below(root):  # else it had done all its work
            places.append(progress(run)[-1])
    assert finish(run)
    assert len(set(places)) >= 5, places
    assert any(EPOCH in place for place in places), f"none was killed while it trained: {places}"
    assert results(root) == undisturbed
    assert not leftovers(root)


def progress(run: Command) -> list[str]:
    """What a run has behind it: nodes, and epochs of training."""
    return re.findall(rf"Completed node: \w+|{EPOCH} \d+/", run.output)


def is_far_enough(run: Command, steps: int, *, stop_in_training: bool) -> bool:
    done = progress(run)
    return len(done) >= steps or (stop_in_training and EPOCH in "".join(done[-1:]))


def test_a_second_run_on_a_storage_root_is_told_of_the_first(
    whole_cluster: Cluster, project: Project, parameters: str, undisturbed: dict[str, str]
) -> None:
    root = "hdfs:///two-runs"
    first = project.run(TABLES_ONLY, root=root, parameters=parameters)
    wait_until(lambda: ".run.lock" in names_below(root), first, "it holds the lock")
    said = " ".join(finish(project.run(root=root, parameters=parameters), status=1).split())
    assert first.poll() is None, "the first run had ended already"
    assert f"process {first.pid} on {socket.gethostname()}" in said
    assert re.search(r"Another run uses .* as `[^`]*run --env=cluster [^`]*--pipelines=", said)
    finish(first)
    assert results(root, TABLES) == tables_of(undisturbed)


@pytest.mark.parametrize("dead_lock", [False, True])
def test_of_runs_that_start_at_the_same_moment_one_goes_on(
    whole_cluster: Cluster,
    project: Project,
    parameters: str,
    undisturbed: dict[str, str],
    dead_lock: bool,
) -> None:
    root = f"hdfs:///race-{dead_lock}"
    if dead_lock:
        killed = project.run(TABLES_ONLY, root=root, parameters=parameters)
        wait_until(lambda: ".run.lock" in names_below(root), killed, "it holds the lock")
        end(killed)
        assert ".run.lock" in names_below(root), "it had given the lock back"
    runs = [project.run(TABLES_ONLY, root=root, parameters=parameters) for _ in range(3)]
    for run in runs:
        run.wait(400)
    said = [run.output for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1, 1], said
    refused = [run.output for run in runs if run.returncode == 1]
    assert ["Another run" in output for output in refused] == [True, True], refused
    assert results(root, TABLES) == tables_of(undisturbed)
    assert not leftovers(root)


def test_a_run_whose_cluster_is_stopped_says_so_and_is_resumed(
    whole_cluster: Cluster,
    project: Project,
    parameters: str,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = "hdfs:///stopped"
    run = project.run(TABLES_ONLY, root=root, parameters=parameters)
    with caught(whole_cluster, run, WRITES_MODEL_INPUTS):
        daemons_and_executors = [process for _, process in daemons.processes_of(whole_cluster.folder)]
        driver = psutil.Process(run.pid)
        working = [*daemons_and_executors, driver, *driver.children(recursive=True)]
        assert hosts_of(working) == {"127.0.0.1"}
        whole_cluster.down()
    said = finish(run, status=1)
    assert re.search(
        "its cluster is gone.*`kedro cluster up`.*--only-missing-outputs", " ".join(said.split())
    )
    whole_cluster.up()
    whole_cluster.use(monkeypatch)  # it may listen elsewhere now
    assert ".run.lock" in names_below(root), "the run had not ended before its storage did"
    finish(project.run(TABLES_ONLY, "--only-missing-outputs", root=root, parameters=parameters))
    assert results(root, TABLES) == tables_of(undisturbed)
    assert not leftovers(root)


def leftovers(root: str) -> list[str]:
    """Hidden names that no finished run may leave."""
    layers = [name for name in names_below(root) if re.match(r"0\d_", name)]
    return [name for layer in layers for name in names_below(f"{root}/{layer}") if name.startswith(".")]
