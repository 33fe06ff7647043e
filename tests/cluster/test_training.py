"""Training in tasks of a cluster: the same network as in one process, on a Spark cluster and on YARN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from brain_mri.imaging.phantom import write_phantom_folder
from tests.cluster_runs import SMALL, Project, finish, wait_until
from tests.clusters import Cluster
from tests.stored_models import trained_weights

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.tensorflow, pytest.mark.slow]

MAX_DIFFERENCE = 1e-5


@pytest.mark.parametrize(
    ("cores", "options"), [(2, ("--worker-cores", "2")), (1, ("--yarn",))], ids=["standalone", "yarn"]
)
def test_workers_on_a_cluster_train_the_same_network_though_one_is_killed(
    start_cluster: Callable[..., Cluster],
    cores: int,
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = start_cluster(*options)
    cluster.use(monkeypatch)
    write_phantom_folder(tmp_path / "scans", images=160, seed=5, processes=1)
    project = Project(tmp_path / "project", cluster.base_environment)
    small = SMALL.replace("training.epochs=2", "training.epochs=1")  # rounding adds up from step to step
    parameters = f"ingestion.source={tmp_path / 'scans'},{small}"
    root = "hdfs:///trained"
    finish(project.run("--pipelines=ingestion,preprocessing,training", root=root, parameters=parameters))
    alone = trained_weights(root)
    distributed = f"{parameters},training.distribution=synchronous,training.worker_cores={cores}"
    run = project.run("--pipelines=training", root=root, parameters=distributed)
    announced = f"2 workers of {cores} CPU core{'s' * (cores > 1)} each"
    wait_until(lambda: announced in run.output, run, "the workers train")
    kill_a_worker(cluster)
    said = finish(run)
    assert said.count(announced) == 2, "killed while it trained, and all were started again"
    assert "was killed by signal 9" in said
    together = trained_weights(root)
    worst = max(float(np.abs(one - other).max()) for one, other in zip(alone, together, strict=True))
    assert 0 < worst < MAX_DIFFERENCE, "both were trained, to the same end"

    apart = distributed.replace("synchronous", "asynchronous")
    said = finish(project.run("--pipelines=training", root=root, parameters=apart))
    assert "2 workers push what they have learned every step" in said
    assert "Worker 1: Epoch 1: " in said
    assert any((one != other).any() for one, other in zip(together, trained_weights(root), strict=True))

    more = distributed.replace(f"worker_cores={cores}", "worker_cores=3")
    said = finish(project.run("--pipelines=training", root=root, parameters=more), status=1)
    assert "2 workers of 3 cores have to run at the same time" in said
    assert "has room for 0." in said


def kill_a_worker(cluster: Cluster) -> None:
    """Kill the process of a worker that a task of the cluster has started."""
    workers = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if "brain_mri.spark.worker" in (process.info["cmdline"] or [])
        and str(cluster.folder) in str(process.info["environ"])
    ]
    assert len(workers) == 2
    workers[0].kill()
