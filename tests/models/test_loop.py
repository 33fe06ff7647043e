from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.models.augmentation import draw, mixed
from brain_mri.models.checkpoints import TrainingState
from brain_mri.models.loop import train_classifier
from brain_mri.models.network import build_network, set_trained_layers
from brain_mri.models.passes import TrainingDiverged
from brain_mri.models.recipe import NO_AUGMENTATION, Recipe, make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.models.steps import TrainingNetwork, evaluate, make_evaluation_step, make_train_step

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
    measured = evaluate(make_evaluation_step(TrainingNetwork(model, longer)), validation)
    assert measured.loss == pytest.approx(stage["best_validation_loss"], rel=1e-4)
    assert stage["best_validation_loss"] == min(record["validation_loss"] for record in stage["epochs"])
    assert "Training compact (recipe baseline, weights random)" in caplog.messages[0]
    assert sum("images/s" in line for line in caplog.messages) == len(stage["epochs"])


def test_blended_images_are_learned_with_labels_blended_alike(recipe: Recipe, train: ArrayShards) -> None:
    import keras

    blended = recipe.model_copy(
        update={"mixup": 1.0, "head": (), "class_weights": False, "augmentation": NO_AUGMENTATION}
    )
    model = build_network(blended)
    network = TrainingNetwork(model, blended)
    pixels, labels = train.pixels[:4, :, :, np.newaxis], train.labels[:4]
    draws = draw(np.arange(4), seed=1, stage=0, epoch=1, count=network.draws)
    images = mixed(pixels.astype(np.float32), draws, 1.0)
    truth = mixed(np.eye(4, dtype=np.float32)[labels], draws, 1.0).numpy()
    expected = -(truth * np.log(model(images, training=True))).sum()
    step = make_train_step(network, model, keras.optimizers.SGD(0.0), blended, [1.0] * 4)
    loss, _ = step(pixels, labels, draws, np.float32(4))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert abs(truth - np.eye(4)[labels]).max() > 0.1, "something was blended"


def test_a_seed_gives_the_same_weights_twice(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, checkpoints: CheckpointStore
) -> None:
    weights = []
    for _ in range(2):
        checkpoints.clear()
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
    checkpoints.save("initial.npz", b"of an earlier training")
    model, history = train_classifier(two, train, validation, checkpoints)
    first, second = history["stages"]
    assert second["best_epoch"] == 0
    assert second["stopped_early"]
    assert len(second["epochs"]) == two.early_stopping_patience
    measured = evaluate(make_evaluation_step(TrainingNetwork(model, two)), validation)
    assert measured.loss == pytest.approx(first["best_validation_loss"], rel=1e-4)

    kept = checkpoints.load(f"state-02-{len(second['epochs']):04d}.npz")
    assert kept is not None
    for stored, restored in zip(
        TrainingState.from_bytes(kept).best_weights, model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(stored, restored)
    assert checkpoints.load("initial.npz") is None


class BrokenOffError(RuntimeError):
    """What breaks a training off in a test."""


@dataclass(frozen=True, eq=False)
class BreakingShards(ArrayShards):
    """Ends the training within a pass: after so many batches of all passes together."""

    batches_left: list[int] = field(default_factory=list)

    def tensorflow(self, *arguments: Any, **options: Any) -> Any:
        for batch in super().tensorflow(*arguments, **options):
            if self.batches_left[0] == 0:
                raise BrokenOffError
            self.batches_left[0] -= 1
            yield batch


@pytest.mark.parametrize("batches", [1, 6, 13])
def test_a_training_that_was_broken_off_goes_on_to_the_same_end(  # noqa: PLR0917 - fixtures
    recipe: Recipe,
    train: ArrayShards,
    validation: ArrayShards,
    checkpoints: CheckpointStore,
    caplog: pytest.LogCaptureFixture,
    batches: int,
) -> None:
    first = recipe.stages[0].model_copy(update={"epochs": 2})
    second = first.model_copy(update={"name": "again", "learning_rate": 3e-4})
    two = recipe.model_copy(update={"stages": (first, second)})
    undisturbed, expected = train_classifier(two, train, validation, checkpoints)
    checkpoints.clear()

    shards = BreakingShards(train.pixels, train.labels, train.classes, batches_left=[batches])
    with pytest.raises(BrokenOffError):
        train_classifier(two, shards, validation, checkpoints)
    shards.batches_left[0] = 1000
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        model, history = train_classifier(two, shards, validation, checkpoints)
    for one, other in zip(undisturbed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    done = batches // 4  # epochs of four batches
    assert ("from the last checkpoint" in caplog.text) == (done > 0)
    assert sum("validation accuracy" in line for line in caplog.messages) == 4 - done
    timeless = {"seconds", "images_per_second"}
    for one_stage, other_stage in zip(expected["stages"], history["stages"], strict=True):
        for one_epoch, other_epoch in zip(one_stage["epochs"], other_stage["epochs"], strict=True):
            assert {k: v for k, v in one_epoch.items() if k not in timeless} == {
                k: v for k, v in other_epoch.items() if k not in timeless
            }


def test_dropout_of_an_example_is_the_same_in_any_batch(recipe: Recipe, train: ArrayShards) -> None:
    network = TrainingNetwork(build_network(recipe), recipe)
    images = train.pixels[:6, ..., None]
    draws = np.random.default_rng(0).random((6, network.draws), dtype=np.float32)
    whole = network(images, draws).numpy()
    alone = np.concatenate([network(images[i : i + 1], draws[i : i + 1]).numpy() for i in (4, 1)])
    np.testing.assert_allclose(alone, whole[[4, 1]], rtol=1e-5, atol=1e-7)
    assert np.abs(whole - network(images, draws[::-1]).numpy()).max() > 1e-3
    kept = network(images, np.ones_like(draws)).numpy()
    assert np.abs(whole - kept).max() > 1e-3, "something was dropped"


@pytest.mark.parametrize("backbone", ["compact", "mobilenetv2"])
def test_a_share_without_images_moves_no_weights(backbone: str, train: ArrayShards) -> None:
    import keras

    recipe = make_recipe(
        "baseline", backbone=backbone, weights=None, image_size=64, classes=train.classes, seed=1
    )
    model = build_network(recipe, synchronized=True)
    set_trained_layers(model, recipe, recipe.stages[-1])
    before = model.get_weights()
    network = TrainingNetwork(model, recipe)
    step = make_train_step(network, model, keras.optimizers.SGD(0.1), recipe, [1.0] * 4)
    nothing = np.zeros((0, network.draws), np.float32)
    loss, right = step(train.pixels[:0, ..., None], train.labels[:0], nothing, np.float32(8))
    assert (float(loss), int(right)) == (0, 0)
    trained = {variable.path for variable in model.trainable_variables}
    for variable, value in zip(model.weights, before, strict=True):
        if variable.path in trained:
            np.testing.assert_array_equal(variable.numpy(), value)


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

    def loss(weights: list[float], wanted: Recipe) -> float:
        model = build_network(wanted)
        network = TrainingNetwork(model, wanted)
        step = make_train_step(network, model, keras.optimizers.Adam(1e-3), wanted, weights)
        draws = np.full((8, network.draws), 0.5, np.float32)
        return float(step(train.pixels[:8, ..., None], train.labels[:8], draws, np.float32(8))[0])

    plain = loss([1.0] * 4, recipe)
    assert loss([2.0] * 4, recipe) == pytest.approx(2 * plain, rel=1e-5)
    without = recipe.model_copy(update={"class_weights": False})
    assert loss([2.0] * 4, without) == pytest.approx(plain, rel=1e-5)
