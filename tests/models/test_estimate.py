from __future__ import annotations

import pytest

from brain_mri.models.estimate import estimate_minutes
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
