from __future__ import annotations

import itertools

import numpy as np
import pytest

from brain_mri.models.cut import find_cut, frozen_part, listed
from brain_mri.models.network import build_network, set_trained_layers
from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.steps import TrainingNetwork
from tests.models.conftest import CLASSES

pytestmark = pytest.mark.tensorflow


def pretrained(backbone: str, image_size: int = 64) -> Recipe:
    return make_recipe(
        "baseline", backbone=backbone, weights=None, image_size=image_size, classes=CLASSES, seed=3
    )


@pytest.mark.parametrize(
    ("backbone", "image_size"),
    [("mobilenetv2", 64), *(pytest.param("resnet50", side, marks=pytest.mark.slow) for side in (64, 80))],
)
def test_both_sides_of_a_cut_together_answer_as_the_whole(backbone: str, image_size: int) -> None:
    recipe = pretrained(backbone, image_size)
    model = build_network(recipe)
    pixels = np.random.default_rng(0).integers(0, 255, (3, image_size, image_size, 1)).astype(np.uint8)
    expected = np.asarray(model(pixels.astype(np.float32), training=False))
    for number, stage in enumerate(recipe.stages):
        cut = find_cut(model, recipe, number)
        assert cut is not None
        set_trained_layers(model, recipe, stage)
        crossing = listed(frozen_part(model, recipe, [cut])(pixels.astype(np.float32), training=False))
        assert [tuple(values.shape[1:]) for values in crossing] == [tensor.shape for tensor in cut.tensors]
        behind = TrainingNetwork(model, recipe, cut)
        np.testing.assert_allclose(behind(tuple(crossing)), expected, atol=1e-6)
        np.testing.assert_allclose(TrainingNetwork(model, recipe)(pixels), expected, atol=1e-6)


def test_what_crosses_the_cut_of_resnet50() -> None:
    recipe = pretrained("resnet50", 224)
    model = build_network(recipe)
    first, second = (find_cut(model, recipe, number) for number in range(2))
    assert first is not None and second is not None
    assert [tensor.shape for tensor in first.tensors] == [(2048,)]
    # The shortcut's 1×1 convolution reads every second row and column of the 14×14 before it.
    assert {(tensor.layer, tensor.shape, tensor.stride) for tensor in second.tensors} == {
        ("conv4_block6_out", (7, 7, 1024), 2),
        ("conv5_block1_1_relu", (7, 7, 512), 1),
    }


def test_what_an_earlier_stage_trained_is_not_taken_for_frozen() -> None:
    recipe = pretrained("mobilenetv2")
    backwards = recipe.model_copy(update={"stages": recipe.stages[::-1]})
    model = build_network(backwards)
    assert find_cut(model, backwards, 1) == find_cut(model, backwards, 0) != find_cut(model, recipe, 0)


def test_a_network_that_is_trained_whole_has_no_cut(recipe: Recipe) -> None:
    assert find_cut(build_network(recipe), recipe, 0) is None


def test_what_crosses_several_cuts_comes_of_one_network() -> None:
    recipe = pretrained("mobilenetv2")
    model = build_network(recipe)
    cuts = [cut for number in (0, 1) if (cut := find_cut(model, recipe, number))]
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 1)).astype(np.float32)
    joint = frozen_part(model, recipe, cuts)(pixels, training=False)
    apart = [listed(frozen_part(model, recipe, [cut])(pixels, training=False)) for cut in cuts]
    for one, other in zip(joint, itertools.chain(*apart), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
