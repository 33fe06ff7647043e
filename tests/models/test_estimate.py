from __future__ import annotations

import pytest

from brain_mri.models.estimate import best_precision, estimate_caching_minutes, estimate_minutes
from brain_mri.models.recipe import make_recipe


def test_the_estimate_follows_rows_cores_and_epochs() -> None:
    recipe = make_recipe(
        "baseline", backbone="resnet50", weights=None, image_size=224, classes=("a", "b"), seed=1
    )
    minutes = estimate_minutes(recipe, 4100, 800, cores=2)
    assert 25 < minutes < 45  # 5 epochs of 89 s and 10 of 121 s, and 15 validations of 17 s
    assert estimate_minutes(recipe, 8200, 1600, cores=4) == pytest.approx(minutes)
    one = recipe.model_copy(update={"stages": recipe.stages[:1]})
    assert estimate_minutes(one, 4100, 800, cores=2) < minutes / 2
    whole = recipe.stages[1].model_copy(update={"unfrozen_layers": "all"})
    all_layers = recipe.model_copy(update={"stages": (recipe.stages[0], whole)})
    assert estimate_minutes(all_layers, 4100, 800, cores=2) > 1.5 * minutes


def test_what_is_cached_counts_once() -> None:
    recipe = make_recipe(
        "baseline", backbone="resnet50", weights=None, image_size=224, classes=("a", "b"), seed=1,
        augmented_copies=2,
    )  # fmt: skip
    whole, behind = (estimate_minutes(recipe, 4100, 800, 2, cached) for cached in ((), (0, 1)))
    assert behind < whole / 2
    assert estimate_minutes(recipe, 4100, 800, 2, (1,)) > behind
    assert estimate_caching_minutes(recipe, 4100, 800, 2) == pytest.approx(9000 / 24 / 2 / 60)


def test_on_gpus_the_big_backbones_are_trained_in_bfloat16() -> None:
    assert best_precision("resnet50", on_gpu=True) == best_precision("mobilenetv2", on_gpu=True)
    assert best_precision("mobilenetv2", on_gpu=True) == "mixed_bfloat16"
    assert best_precision("compact", on_gpu=True) == best_precision("mobilenetv2") == "float32"
