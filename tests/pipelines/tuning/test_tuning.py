"""A search whose trials are real trainings in real Spark tasks."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from brain_mri.datasets import CheckpointStore
from brain_mri.datasets.features import FeatureCache
from brain_mri.datasets.shards import ShardSet
from brain_mri.models.backbones import WeightsError
from brain_mri.models.search import Configuration
from brain_mri.pipelines.training.nodes import NotTunedError, choose_recipe
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.tuning.nodes import NothingFoundError, _best, describe_search, draw_search, search
from brain_mri.pipelines.tuning.parameters import TuningParameters
from brain_mri.pipelines.tuning.pipeline import create_pipeline
from tests.models.conftest import CLASSES, bright_quadrants
from tests.spark_workers import running_workers
from tests.stored_shards import store

CONFIGURATION = Path(__file__).resolve().parents[3] / "conf" / "base"
SPLIT_METADATA = {"source": {"kind": "phantom", "synthetic": True}}
TIMES = ["started", "seconds", "worker"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    folder = tmp_path_factory.mktemp("shards")
    train, validation = bright_quadrants(96, seed=1), bright_quadrants(32, seed=2)
    return store(train, str(folder / "train"), 48), store(validation, str(folder / "validation"), 32)


def run(
    sets: tuple[ShardSet, ShardSet], folder: Path, training: TrainingParameters | None = None, **tuning: Any
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, float]]:
    small = {"epochs": 3, "rounds": 1, "trials_per_round": 2, "finalists": 1, "seeds": 1, **tuning}
    stores = CheckpointStore(str(folder / "tuning")), FeatureCache(str(folder / "features"))
    parameters = TuningParameters(**small)
    return search(*sets, *stores, SPLIT_METADATA, parameters, training or TrainingParameters())


def test_every_output_has_its_place() -> None:
    pipeline = create_pipeline()
    catalog = yaml.safe_load((CONFIGURATION / "catalog_tuning.yml").read_text())
    assert pipeline.all_outputs() | {"tuning_store"} == set(catalog)


@pytest.mark.spark
@pytest.mark.tensorflow
def test_the_best_configuration_is_found_though_one_fails_and_one_is_killed(
    spark: Any, sets: tuple[ShardSet, ShardSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []

    def kill() -> None:
        """Kill the process of a trial of the second round, once it trains."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and not killed:
            if sum(line.startswith("Trial ") and " epochs in " in line for line in caplog.messages) >= 2:
                for worker in running_workers():
                    with suppress(psutil.Error):  # it has just ended
                        if worker.cpu_times().user > 2 and not killed:  # TensorFlow is there
                            worker.kill()
                            killed.append(worker.pid)
            time.sleep(0.01)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    space = {"learning_rate": [1e38, 3e-3, 2e-3, 1e-6], "batch_size": [16]}
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        wanted = {
            "space": space,
            "sampler": "grid",
            "seed": 45,
        }  # of which the first round has the absurd rate
        trials, best, _ = run(sets, tmp_path, **wanted, rounds=2, epochs=8, pruner="none")
    killing.join()
    assert killed, "within a trial"
    rates = [json.loads(row)["learning_rate"] for row in trials["configuration"]]
    assert sorted(rates) == [1e-6, 2e-3, 3e-3, 1e38]
    by_rate = trials.set_index(pd.Index(rates))
    assert list(trials["number"]) == [1, 2, 3, 4]
    assert list(trials["round"]) == [1, 1, 2, 2]
    assert by_rate.loc[1e38, "status"] == "failed"
    assert by_rate.loc[1e38, "reason"].startswith("TrainingDiverged: The loss became")
    lost = trials[trials["status"] == "lost"]
    assert len(lost) == 1
    assert "was killed by signal 9" in lost.iloc[0]["reason"]
    assert list(lost["round"]) == [2]
    complete = trials[trials["status"] == "complete"]
    assert len(complete) == 2
    assert complete["macro_f1"].between(0, 1).all()
    assert (complete["epochs"] == 8).all()
    assert all(worker.rpartition(":")[2].isdigit() for worker in complete["worker"])
    chosen = complete.loc[complete["macro_f1"].idxmax()]
    assert best["trial"] == chosen["number"]
    assert best["configuration"] == json.loads(chosen["configuration"])
    finished = [line for line in caplog.messages if line.startswith("Trial ") and " epochs in " in line]
    assert len(finished) == 4, "a line a trial"
    assert any("Worker" in line and "Epoch 1" in line for line in caplog.messages) is False


@pytest.mark.spark
@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_study_goes_on_where_it_was_broken_off_to_the_same_end(
    spark: Any, sets: tuple[ShardSet, ShardSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "dropout": [0.1, 0.5]}
    wanted = {"space": space, "rounds": 2, "finalists": 2, "seeds": 2, "epochs": 2}
    trials, best, importances = run(sets, tmp_path / "undisturbed", **wanted)
    assert len(trials) == 6
    assert list(trials["final"]) == [False] * 4 + [True] * 2
    assert len(best["values"]) == 2

    run(sets, tmp_path / "disturbed", **{**wanted, "rounds": 1, "seeds": 1})
    left = CheckpointStore(str(tmp_path / "disturbed" / "tuning"))
    left.remove("trial-2-seed-42.json")  # the break came while it was trained
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        again, same, also = run(sets, tmp_path / "disturbed", **wanted)
    assert "1 trials had ended before; 1 are left of these." in caplog.messages
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), trials.drop(columns=TIMES))
    assert (same, also) == (best, importances)
    assert again["worker"][0] != again["worker"][1]

    caplog.clear()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        run(sets, tmp_path / "disturbed", **{**wanted, "seed": 1, "rounds": 1, "seeds": 1})
    assert not any("had ended before" in line for line in caplog.messages), "another study"


@pytest.mark.spark
@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.realdata
def test_trials_that_freeze_the_same_layers_share_what_those_compute(
    spark: Any,
    sets: tuple[ShardSet, ShardSet],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    real_weights: Path,
) -> None:
    training = TrainingParameters(backbone="mobilenetv2", weights=str(real_weights), recipe="best")
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        trials, _, _ = run(sets, tmp_path, training, space={"head_units": [[8], [16, 8]]}, sampler="grid")
    assert list(trials["status"]) == ["complete"] * 2
    assert sum("What frozen layers compute of 128 images is cached" in line for line in caplog.messages) == 1


@pytest.mark.spark
@pytest.mark.tensorflow
def test_where_nothing_is_complete_the_reasons_are_told_and_the_next_run_tries_again(
    spark: Any, sets: tuple[ShardSet, ShardSet], tmp_path: Path
) -> None:
    with pytest.raises(NothingFoundError, match=r"None of 2 trials.*TrainingDiverged: The loss became"):
        run(sets, tmp_path, space={"learning_rate": [1e38, 2e38]}, sampler="grid")
    assert CheckpointStore(str(tmp_path / "tuning")).names() == []


def test_a_space_that_a_backbone_has_no_stages_for_is_refused(
    sets: tuple[ShardSet, ShardSet], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="varies fine_tuning_rate, but compact is trained in one stage"):
        run(sets, tmp_path, space={"fine_tuning_rate": [1e-3, 1e-4]}, stages=None)


def test_weights_that_cannot_be_had_are_told_before_the_first_trial(
    sets: tuple[ShardSet, ShardSet], tmp_path: Path
) -> None:
    training = TrainingParameters(weights=str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match=r"none\.h5"):
        run(sets, tmp_path, training, space={"backbone": ["mobilenetv2"], "dropout": [0.1, 0.2]})


def test_a_finalist_whose_luck_was_not_repeated_is_not_the_best() -> None:
    def row(number: int, seed: int, reached: float, status: str = "complete") -> dict[str, Any]:
        return {
            "number": number, "seed": seed, "macro_f1": reached, "status": status, "configuration": "{}",
        }  # fmt: skip

    trials = [row(1, 42, 0.95), row(2, 42, 0.94), row(1, 43, 0.0, "lost"), row(2, 43, 0.92)]
    found = _best(trials[:2], trials, TuningParameters())
    assert (found["trial"], found["values"]) == (2, [0.94, 0.92])


def test_training_with_what_was_found_says_when_there_is_none() -> None:
    tuned = TrainingParameters(config="tuned", backbone="compact")
    for nothing in (None, {}):
        with pytest.raises(NotTunedError, match=r"there is none\. Run `kedro run --pipelines=tuning`"):
            choose_recipe(tuned, "phantom", 64, CLASSES, nothing)


def test_what_was_found_changes_the_recipe_that_was_searched() -> None:
    found = {"learning_rate": 0.002, "head_units": [32]}
    best = {"recipe": "baseline", "configuration": found, "study": "abc", "trial": 3}
    asked = TrainingParameters(config="tuned", backbone="mobilenetv2")
    recipe = choose_recipe(asked, "folder", 64, CLASSES, best)
    plain, searched = (
        TrainingParameters(backbone="mobilenetv2", recipe=name) for name in ("best", "baseline")
    )
    expected = choose_recipe(searched, "folder", 64, CLASSES)
    assert recipe == Configuration(learning_rate=0.002, head_units=(32,)).applied(expected)
    assert choose_recipe(plain, "folder", 64, CLASSES, best).name == "best"


def test_a_search_is_drawn_and_described(trials: pd.DataFrame) -> None:
    importances = {"learning_rate": 0.8, "dropout": 0.2}
    figures = draw_search(trials, importances, SPLIT_METADATA, TuningParameters())
    assert len(figures) == 3
    best = {
        "study": "abc", "preparation": "p", "configuration": {"dropout": 0.2}, "trial": 2, "trials": 4,
        "metric": "macro_f1", "mean": 0.85, "values": [0.8, 0.9],
    }  # fmt: skip
    section = describe_search(trials, best, b"one", b"two", b"three")
    assert (section["study"], section["trial"], section["preparation"]) == ("abc", 2, "p")
    (words,) = section["paragraphs"]
    assert "4 trials: 2 complete, 1 failed, 1 pruned. Trial 2 was chosen: macro_f1 0.850" in words
    assert "mean of 2 seeds (0.800 to 0.900)" in words
    assert [row[0] for row in section["tables"][0]["rows"]] == ["2", "1"], "the best first"
    assert len(section["figures"]) == 3
    assert json.loads(json.dumps(section)) == section


@pytest.fixture
def trials() -> pd.DataFrame:
    rows = [
        (1, False, "complete", 0.7, [0.5, 0.7], {"learning_rate": 0.01, "dropout": 0.5}),
        (2, False, "complete", 0.8, [0.6, 0.8], {"learning_rate": 0.001, "dropout": 0.2}),
        (3, False, "pruned", 0.3, [0.3], {"learning_rate": 0.1, "dropout": 0.2}),
        (4, False, "failed", None, [], {"learning_rate": 1.0, "dropout": 0.2}),
        (2, True, "complete", 0.9, [0.7, 0.9], {"learning_rate": 0.001, "dropout": 0.2}),
    ]
    return pd.DataFrame(
        {
            "number": number, "round": 1, "seed": 42 + final, "final": final, "epochs": len(values),
            "configuration": json.dumps(configuration), "status": status, "values": values, "accuracy": score,
            "macro_f1": score, "loss": score, "started": 1.8e9, "seconds": 3.0, "worker": "here:1",
            "reason": "",
        }
        for number, final, status, score, values, configuration in rows
    )  # fmt: skip
