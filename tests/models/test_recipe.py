from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from brain_mri.models.recipe import Recipe, make_recipe

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def recipe_for(backbone: str, epochs: int | None = None) -> Recipe:
    return make_recipe(
        "baseline", backbone=backbone, weights=None, image_size=224, classes=CLASSES, seed=1, epochs=epochs
    )


@pytest.mark.parametrize(("backbone", "unfrozen"), [("resnet50", 30), ("mobilenetv2", 50)])
def test_big_backbones_are_trained_in_two_stages(backbone: str, unfrozen: int) -> None:
    recipe = recipe_for(backbone)
    assert (recipe.early_stopping_patience, recipe.plateau_patience, recipe.plateau_factor) == (5, 3, 0.5)
    frozen, tuned = recipe.stages
    assert (frozen.epochs, frozen.batch_size, frozen.unfrozen_layers) == (5, 16, 0)
    assert (tuned.epochs, tuned.learning_rate, tuned.unfrozen_layers) == (10, 1e-5, unfrozen)


def test_compact_is_trained_as_a_whole_in_one_stage() -> None:
    (stage,) = recipe_for("compact").stages
    assert stage.unfrozen_layers == "all"


def test_head_first_trains_the_same_head_for_longer_and_the_last_layers_faster() -> None:
    plain, head_first = (
        make_recipe(name, backbone="resnet50", weights=None, image_size=224, classes=CLASSES, seed=1)
        for name in ("baseline", "head_first")
    )
    assert head_first.head == plain.head
    for slow, fast in zip(plain.stages, head_first.stages, strict=True):
        assert (fast.name, fast.unfrozen_layers) == (slow.name, slow.unfrozen_layers)
    assert head_first.stages[0].epochs > plain.stages[0].epochs
    assert head_first.stages[1].learning_rate > plain.stages[1].learning_rate


def test_head_first_needs_a_pretrained_base() -> None:
    with pytest.raises(ValueError, match=r"'compact' has none.*recipe=best"):
        make_recipe("head_first", backbone="compact", weights=None, image_size=64, classes=CLASSES, seed=1)


def test_a_limit_shortens_stages_and_never_lengthens_them() -> None:
    assert [stage.epochs for stage in recipe_for("resnet50", epochs=7).stages] == [5, 7]


def test_a_recipe_comes_back_from_its_json() -> None:
    recipe = recipe_for("mobilenetv2")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_mistyped_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'mobilenetv2'"):
        recipe_for("MobileNet_V2")
    with pytest.raises(ValueError, match="Did you mean 'baseline'"):
        make_recipe("base-line", backbone="compact", weights=None, image_size=64, classes=CLASSES, seed=1)


def test_a_recipe_cannot_be_changed_or_extended() -> None:
    recipe = recipe_for("compact")
    with pytest.raises(ValidationError):
        recipe.seed = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises(ValidationError, match="momentum"):
        Recipe.model_validate({**recipe.model_dump(), "momentum": 0.9})


@pytest.mark.parametrize("backbone", ["mobilenetv2", "resnet50"])
def test_best_trains_all_layers_under_a_rate_that_rises_and_falls(backbone: str) -> None:
    best = make_recipe("best", backbone=backbone, weights="imagenet", image_size=224, classes=CLASSES, seed=1)
    for stage in best.stages:
        assert stage.unfrozen_layers == "all"
        passed = np.arange(28 * stage.epochs + 1) / 28  # the end of the warm-up is among them
        rates = [stage.rate_after(epochs, stage.learning_rate) for epochs in passed]
        top = int(np.argmax(rates))
        assert rates[0] == 0
        assert rates[top] == stage.learning_rate
        assert rates[-1] == pytest.approx(0, abs=1e-12)
        assert (np.diff(rates[: top + 1]) > 0).all()
        assert (np.diff(rates[top:]) < 0).all()
    assert best.pooled_dropout > 0
    assert best.mixup > 0
    assert not best.asks_twice
