"""A search whose trials are tasks of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from brain_mri.imaging.phantom import write_phantom_folder
from tests.cluster_runs import SMALL, Project, end, finish, names_below, read, wait_until
from tests.clusters import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.tensorflow, pytest.mark.slow]


def test_a_study_on_a_cluster_outlives_a_failing_trial_a_killed_one_and_its_driver(
    start_cluster: Callable[..., Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start_cluster()
    cluster.use(monkeypatch)
    write_phantom_folder(tmp_path / "scans", images=160, seed=5, processes=1)
    project = Project(tmp_path / "project", cluster.base_environment)
    (project.folder / "conf" / "cluster" / "parameters_tuning.yml").write_text(
        """
tuning:
  space: {learning_rate: [1.0e+38, 0.001, 0.002, 0.003]}
  sampler: grid
  seed: 45  # the first trial has the absurd rate
  pruner: none
  epochs: 8
  rounds: 2
  trials_per_round: 2
  finalists: 1
  seeds: 1
"""
    )
    parameters, root = f"ingestion.source={tmp_path / 'scans'},{SMALL}", "hdfs:///tuned"
    words = "--pipelines=ingestion,preprocessing,tuning"
    run = project.run(words, root=root, parameters=parameters)
    store = f"{root}/06_models/tuning"
    wait_until(lambda: "trial-1-seed-42.json" in names_below(store), run, "a trial ends")
    assert "tuning_trials.parquet" not in names_below(f"{root}/07_model_output")
    end(run)

    run = project.run("--pipelines=tuning", root=root, parameters=parameters)
    wait_until(lambda: "trial-2-seed-42.json" in names_below(store), run, "the first round ends")
    wait_until(lambda: kill_a_task(cluster), run, "a trial is trained")
    said = finish(run)
    assert "had ended before; " in said
    assert "Best configuration: trial " in said
    name = "07_model_output/tuning_trials.parquet"
    (tmp_path / "trials.parquet").write_bytes(read(root, name))
    trials = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(trials["number"]) == [1, 2, 3, 4]
    assert sorted(trials["status"]) == ["complete", "complete", "failed", "lost"]
    (lost,) = trials.loc[trials["status"] == "lost", "reason"]
    assert "Its task died" in lost, "Spark's second attempt does not train it again"
    best = json.loads(read(root, "07_model_output/best_config.json"))
    assert best["trial"] in set(trials.loc[trials["status"] == "complete", "number"])


def kill_a_task(cluster: Cluster) -> bool:
    """Kill the Python process of Spark in which a trial is being trained; its own process ends with it."""
    for process in psutil.process_iter(["cmdline", "environ", "cpu_times"]):
        with suppress(psutil.Error):  # it has just ended
            if (
                "brain_mri.spark.worker" in (process.info["cmdline"] or [])
                and str(cluster.folder) in str(process.info["environ"])
                and process.info["cpu_times"].user > 2
            ):
                process.parent().kill()  # type: ignore[union-attr]
                return True
    return False
