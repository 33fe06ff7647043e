from __future__ import annotations

from typing import Any

import pytest

from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.search import Between, Configuration, OneOf, read_space

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe("baseline", backbone="resnet50", weights=None, image_size=64, classes=CLASSES, seed=1)


def test_an_empty_configuration_changes_nothing(recipe: Recipe) -> None:
    assert Configuration().applied(recipe) == recipe


def test_every_choice_is_in_the_recipe(recipe: Recipe) -> None:
    configuration = Configuration(
        backbone="resnet50", learning_rate=2e-3, fine_tuning_rate=3e-5, batch_size=8, dropout=0.25,
        head_units=(64, 32, 16), unfrozen_layers=12, augmentation=2.0, label_smoothing=0.1, optimizer="sgd",
    )  # fmt: skip
    changed = configuration.applied(recipe)
    assert [stage.learning_rate for stage in changed.stages] == [2e-3, 3e-5]
    assert [stage.batch_size for stage in changed.stages] == [8, 8]
    assert [stage.unfrozen_layers for stage in changed.stages] == [0, 12]
    assert [block.units for block in changed.head] == [64, 32, 16]
    assert {block.dropout for block in changed.head} == {0.25}
    assert changed.augmentation.rotation_degrees == 2 * recipe.augmentation.rotation_degrees
    assert (changed.label_smoothing, changed.optimizer) == (0.1, "sgd")
    assert changed.seed == recipe.seed


def test_what_a_recipe_has_not_cannot_be_changed(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="for resnet50, the configuration for compact"):
        Configuration(backbone="compact").applied(recipe)
    compact = make_recipe(
        "baseline", backbone="compact", weights=None, image_size=64, classes=CLASSES, seed=1
    )
    with pytest.raises(ValueError, match="one stage: there is no fine_tuning_rate"):
        Configuration(fine_tuning_rate=1e-5).applied(compact)


def test_a_space_is_read() -> None:
    space = read_space(
        {"head_units": [[256, 128], [64]], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    )
    assert space == {
        "head_units": OneOf(options=([256, 128], [64])),
        "learning_rate": Between(low=1e-4, high=1e-2, log=True),
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "The search space is empty. It may vary backbone, learning_rate"),
        ({"learning_rat": [0.1]}, "Did you mean 'learning_rate'"),
        ({"dropout": [0.2, 1.5]}, "dropout: Input should be less than 1"),
        ({"dropout": {"low": 0.5, "high": 0.2}}, "dropout: .*low is 0.5 and high 0.2"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "learning_rate: .*log needs a low above 0"),
        ({"learning_rate": {"low": 1e-4}}, "Expected a list of values, or low and high"),
        ({"batch_size": []}, "batch_size: .*at least 1 item"),
        ({"batch_size": {"low": 8.5, "high": 32}}, "batch_size: Input should be a valid integer"),
        ({"optimizer": ["adma"]}, "optimizer: Input should be 'adam', 'adamw' or 'sgd'"),
        ({"batch_size": {"low": 8, "high": 32, "step": 0.5}}, "batch_size: step is 0.5.*whole number"),
        ({"dropout": {"low": 0.1, "high": 0.5, "step": 2}}, "dropout: .*there is no second value"),
        ({"learning_rate": {"low": 0.1, "high": float("inf")}}, r"learning_rate\.high: .*finite"),
        ({"learning_rate": {"low": 0.1, "hihg": 0.2}}, r"learning_rate\.(high: Field required|hihg: )"),
        ({"dropout": [0.1, 0.1]}, "dropout: .*an option is there twice"),
        ({"backbone": "resnet50"}, "backbone: .*Expected a list of values"),
    ],
)
def test_a_bad_space_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_space(given)
