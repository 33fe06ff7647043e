from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain_mri.models.network import build_network, set_trained_layers
from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.steps import TrainingNetwork, make_train_step

pytestmark = pytest.mark.tensorflow

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def recipe_for(backbone: str, image_size: int) -> Recipe:
    return make_recipe(
        "baseline", backbone=backbone, weights=None, image_size=image_size, classes=CLASSES, seed=1
    )


def take_step(model: Any, recipe: Recipe, stage: int, rows: int) -> float:
    import keras

    set_trained_layers(model, recipe, recipe.stages[stage])
    network = TrainingNetwork(model, recipe)
    step = make_train_step(network, model, keras.optimizers.Adam(1e-3), recipe, [1.0] * 4)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (rows, recipe.image_size, recipe.image_size, 1)).astype(np.uint8)
    draws = random.random((rows, network.draws), dtype=np.float32)
    loss, _ = step(pixels, np.arange(rows) % 4, draws, np.float32(rows))
    return float(loss)


def test_resnet50_has_the_published_number_of_parameters_and_trains() -> None:
    recipe = recipe_for("resnet50", 224)
    model = build_network(recipe)
    assert model.count_params() == 24_146_692
    losses = [take_step(model, recipe, stage, rows=2) for stage in (0, 1)]
    assert np.isfinite(losses).all()


def test_each_stage_trains_its_layers_and_no_batch_norm_of_the_base() -> None:
    recipe = recipe_for("mobilenetv2", 32)
    model = build_network(recipe)
    base = model.get_layer("mobilenetv2")

    def changed_by(stage: int) -> dict[str, bool]:
        before = {layer.name: layer.get_weights() for layer in base.layers}
        take_step(model, recipe, stage, rows=4)
        return {
            name: any(not np.array_equal(old, new) for old, new in zip(weights, now, strict=True))
            for (name, weights), now in zip(
                before.items(), (layer.get_weights() for layer in base.layers), strict=True
            )
        }

    assert not any(changed_by(0).values())
    changed = changed_by(1)
    last = {layer.name for layer in base.layers[-50:]}
    assert {name for name, is_changed in changed.items() if is_changed} == {
        name for name in last if name.endswith(("expand", "depthwise", "project", "Conv_1"))
    }


def test_more_unfrozen_layers_than_there_are_is_an_error() -> None:
    recipe = recipe_for("compact", 64)
    stage = recipe.stages[0].model_copy(update={"unfrozen_layers": 1000})
    with pytest.raises(ValueError, match="unfreezes 1000 layers, but compact has"):
        set_trained_layers(build_network(recipe), recipe, stage)


@pytest.mark.parametrize(("backbone", "module"), [("resnet50", "resnet50"), ("mobilenetv2", "mobilenet_v2")])
def test_scaling_inside_the_model_is_the_backbones_own(backbone: str, module: str) -> None:
    import keras

    from brain_mri.models.network import _prepare

    grey = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.float32)
    inputs = keras.Input((8, 8, 1))
    found = keras.Model(inputs, _prepare(inputs, backbone))(grey)
    expected = getattr(keras.applications, module).preprocess_input(np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_seed_gives_the_same_start_and_leaves_other_randomness_alone(recipe: Recipe) -> None:
    import random

    state, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # the legacy tuple
    first, second = build_network(recipe), build_network(recipe)
    other = build_network(recipe.model_copy(update={"seed": 8}))
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]  # likewise
    for one, two in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_a_saved_model_answers_the_same_for_bytes_and_floats(recipe: Recipe, tmp_path: Path) -> None:
    import keras

    model = build_network(recipe)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 1)).astype(np.uint8)
    expected = np.asarray(model(pixels.astype(np.float32), training=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(pixels, training=False), expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
