"""Workers that share what they learn through a parameter server, on real Spark tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.datasets.shards import ShardSet
from brain_mri.imaging.phantom.draw import draw_phantom
from brain_mri.models.apart import train_apart
from brain_mri.models.loop import TrainingHistory
from brain_mri.models.passes import TrainingDiverged
from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.models.together import train_together
from brain_mri.spark.apart import ApartLauncher
from brain_mri.spark.together import TogetherLauncher
from tests.models.conftest import CLASSES, bright_quadrants
from tests.spark_workers import running_workers
from tests.stored_shards import store

pytestmark = [pytest.mark.spark, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    folder = tmp_path_factory.mktemp("shards")
    train, validation = bright_quadrants(250, seed=1), bright_quadrants(24, seed=2)
    return store(train, str(folder / "train"), 64), store(validation, str(folder / "validation"), 13)


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(str(tmp_path / "checkpoints"))


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    stage = recipe.stages[0].model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"stages": (stage,)})


def best_accuracy(history: TrainingHistory) -> float:
    return max(epoch["validation_accuracy"] for epoch in history["stages"][-1]["epochs"])


def test_workers_learn_apart_though_one_is_killed(
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    checkpoints: CheckpointStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killed: list[list[str]] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while "state-01-0001.npz" not in checkpoints.names() and time.monotonic() < deadline:
            time.sleep(0.005)
        running_workers()[0].kill()
        killed.append(checkpoints.names())

    killing = threading.Thread(target=kill)
    killing.start()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        _, history = train_apart(with_epochs(recipe, 6), *stored, checkpoints, ApartLauncher(2))
    killing.join()
    (stage,) = history["stages"]
    assert killed and "state-01-0006.npz" not in killed[0], "while it trained"
    assert sum("is started again, alone" in line for line in caplog.messages) == 1
    assert [epoch["epoch"] for epoch in stage["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert best_accuracy(history) > 0.9
    assert history["workers"] == 2
    assert max(epoch["images_per_second"] for epoch in stage["epochs"]) < 250 / 0.05, "an epoch takes a while"
    assert max(epoch["staleness"] for epoch in stage["epochs"]) > 0
    assert any(line.startswith("Worker 1: Epoch 1: ") for line in caplog.messages)


@pytest.mark.slow
def test_a_training_that_was_broken_off_goes_on(
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    checkpoints: CheckpointStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = with_epochs(recipe, 3)
    train_apart(first, *stored, checkpoints, ApartLauncher(2))
    checkpoints.remove("state-01-0003.npz")
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        _, history = train_apart(first, *stored, checkpoints, ApartLauncher(2))
    assert "Going on after epoch 2 of stage 'from scratch', from the last checkpoint." in caplog.messages
    assert len(history["stages"][0]["epochs"]) == 3


@pytest.mark.slow
def test_what_diverges_is_raised_here(
    spark: Any, recipe: Recipe, stored: tuple[ShardSet, ShardSet], checkpoints: CheckpointStore
) -> None:
    stage = recipe.stages[0].model_copy(update={"learning_rate": 1e38})
    absurd = recipe.model_copy(update={"stages": (stage,)})
    with pytest.raises(TrainingDiverged, match=r"stage 'from scratch', epoch 1\..*1e\+38"):
        train_apart(absurd, *stored, checkpoints, ApartLauncher(2))


def phantoms(rows: int, first_seed: int) -> ArrayShards:
    labels = np.arange(rows, dtype=np.int64) % 4
    pixels = [
        draw_phantom(CLASSES[label], first_seed + number, size=96).pixels
        for number, label in enumerate(labels)
    ]
    return ArrayShards(np.stack(pixels), labels, CLASSES)


@pytest.mark.slow
def test_asynchronous_training_is_within_a_point_of_synchronous_over_three_seeds(
    spark: Any, tmp_path: Path
) -> None:
    sets = [
        store(phantoms(rows, seed), str(tmp_path / name), 128)
        for name, rows, seed in (("train", 2000, 0), ("validation", 1000, 5000))
    ]
    accuracies: dict[str, list[float]] = {"synchronous": [], "asynchronous": []}
    ways: dict[str, Callable[..., Any]] = {
        "synchronous": lambda *given: train_together(*given, TogetherLauncher(2)),
        "asynchronous": lambda *given: train_apart(*given, ApartLauncher(2)),
    }
    for seed in (1, 2, 3):
        recipe = make_recipe(
            "baseline", backbone="compact", weights=None, image_size=96, classes=CLASSES, seed=seed, epochs=12
        )
        for way, train in ways.items():
            _, history = train(recipe, *sets, CheckpointStore(str(tmp_path / f"{way}-{seed}")))
            accuracies[way].append(best_accuracy(history))
    assert np.mean(accuracies["asynchronous"]) > np.mean(accuracies["synchronous"]) - 0.01
    assert min(accuracies["synchronous"]) > 0.8, "there is something to lose"
