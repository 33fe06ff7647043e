from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.models.checkpoints import unpack_weights
from brain_mri.models.loop import TrainingDiverged, train_classifier
from brain_mri.models.network import build_network
from brain_mri.models.recipe import Recipe
from brain_mri.models.steps import evaluate, make_evaluation_step
from tests.array_shards import ArrayShards

pytestmark = pytest.mark.tensorflow


def with_stage(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update=changes),)})


def test_training_learns_and_ends_with_the_best_weights(
    recipe: Recipe,
    train: ArrayShards,
    validation: ArrayShards,
    checkpoints: CheckpointStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    longer = with_stage(recipe, epochs=12)
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        model, history = train_classifier(longer, train, validation, checkpoints)
    (stage,) = history["stages"]
    assert max(record["validation_accuracy"] for record in stage["epochs"]) > 0.9
    assert [record["epoch"] for record in stage["epochs"]] == list(range(1, len(stage["epochs"]) + 1))
    measured = evaluate(make_evaluation_step(model, longer), validation)
    assert measured.loss == pytest.approx(stage["best_validation_loss"], rel=1e-4)
    assert stage["best_validation_loss"] == min(record["validation_loss"] for record in stage["epochs"])
    assert "Training compact (recipe baseline, weights random)" in caplog.messages[0]
    assert sum("images/s" in line for line in caplog.messages) == len(stage["epochs"])


def test_a_seed_gives_the_same_weights_twice(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, checkpoints: CheckpointStore
) -> None:
    weights = []
    for _ in range(2):
        model, _ = train_classifier(recipe, train, validation, checkpoints)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_training_stops_when_the_loss_is_no_longer_a_number(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, checkpoints: CheckpointStore
) -> None:
    absurd = with_stage(recipe, learning_rate=1e38)
    with pytest.raises(TrainingDiverged, match=r"stage 'from scratch', epoch 1 after \d+ images.*1e\+38"):
        train_classifier(absurd, train, validation, checkpoints)


def test_a_stage_that_makes_it_worse_is_undone_and_stopped(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, checkpoints: CheckpointStore
) -> None:
    good = recipe.stages[0].model_copy(update={"epochs": 6})
    bad = good.model_copy(update={"name": "harmful", "epochs": 20, "learning_rate": 0.3})
    two = recipe.model_copy(update={"stages": (good, bad), "plateau_patience": 50})
    checkpoints.save("3-earlier.weights.npz", b"of an earlier training")
    model, history = train_classifier(two, train, validation, checkpoints)
    first, second = history["stages"]
    assert second["best_epoch"] == 0
    assert second["stopped_early"]
    assert len(second["epochs"]) == two.early_stopping_patience
    measured = evaluate(make_evaluation_step(model, two), validation)
    assert measured.loss == pytest.approx(first["best_validation_loss"], rel=1e-4)

    kept = checkpoints.load("1-from-scratch.weights.npz")
    assert kept is not None
    for stored, restored in zip(unpack_weights(kept), model.get_weights(), strict=True):
        np.testing.assert_array_equal(stored, restored)
    assert checkpoints.load("2-harmful.weights.npz") is None, "no epoch of it was the best"
    assert checkpoints.load("3-earlier.weights.npz") is None


def test_inputs_that_the_recipe_does_not_expect_are_refused(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, checkpoints: CheckpointStore
) -> None:
    small = ArrayShards(train.pixels[:, :32, :32], train.labels, train.classes)
    with pytest.raises(ValueError, match="recipe expects 64 pixels"):
        train_classifier(recipe, small, validation, checkpoints)
    other = ArrayShards(validation.pixels, validation.labels, ("a", "b"))
    with pytest.raises(ValueError, match="classes a, b"):
        train_classifier(recipe, train, other, checkpoints)
    empty = ArrayShards(train.pixels[:0], train.labels[:0], train.classes)
    with pytest.raises(ValueError, match="no training images"):
        train_classifier(recipe, empty, validation, checkpoints)


def test_class_weights_count_in_the_loss(recipe: Recipe, train: ArrayShards) -> None:
    import keras

    from brain_mri.models.steps import make_train_step

    def loss(weights: list[float], wanted: Recipe) -> float:
        model = build_network(wanted)
        step = make_train_step(model, keras.optimizers.Adam(1e-3), wanted, weights)
        draws = np.full((8, 3), 0.5, np.float32)
        return float(step(train.pixels[:8, ..., None], train.labels[:8], draws)[0])

    plain = loss([1.0] * 4, recipe)
    assert loss([2.0] * 4, recipe) == pytest.approx(2 * plain, rel=1e-5)
    without = recipe.model_copy(update={"class_weights": False})
    assert loss([2.0] * 4, without) == pytest.approx(plain, rel=1e-5)
