from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from brain_mri.models.progress import (
    EpochRecord,
    Progress,
    StageRecord,
    advance,
    class_weights,
    find_warnings,
    should_stop,
)
from brain_mri.models.recipe import Recipe


def after(losses: Sequence[float], recipe: Recipe, start: Progress | None = None) -> Progress:
    progress = start or Progress(learning_rate=1e-3)
    for epoch, loss in enumerate(losses, start=1):
        progress = advance(progress, epoch, loss, recipe, recipe.stages[0])
    return progress


def stage(*epochs: tuple[float, float]) -> StageRecord:
    """A stage from pairs of accuracy and validation accuracy."""
    records = [
        EpochRecord(
            epoch=number, loss=1.0, accuracy=accuracy, validation_loss=1.0, validation_accuracy=validation,
            learning_rate=1e-3, images_per_second=1.0, seconds=1.0,
        )
        for number, (accuracy, validation) in enumerate(epochs, start=1)
    ]  # fmt: skip
    return StageRecord(
        name="s", epochs=records, best_epoch=1, best_validation_loss=1.0, stopped_early=False,
        trained_parameters=1,
    )  # fmt: skip


def test_the_best_epoch_has_the_lowest_validation_loss(recipe: Recipe) -> None:
    progress = after([0.9, 0.5, 0.7], recipe)
    assert (progress.best_epoch, progress.best_loss, progress.waited) == (2, 0.5, 1)


def test_a_stage_must_beat_the_weights_it_began_with(recipe: Recipe) -> None:
    progress = after([0.5, 0.45], recipe, Progress(learning_rate=1e-5, best_loss=0.4))
    assert (progress.best_epoch, progress.best_loss) == (0, 0.4)


def test_the_learning_rate_is_halved_after_three_epochs_without_gain(recipe: Recipe) -> None:
    assert after([1.0, 1.1, 1.1], recipe).learning_rate == 1e-3
    assert after([1.0, 1.1, 1.1, 1.1], recipe).learning_rate == 5e-4
    assert after([1.0] * 7, recipe).learning_rate == 2.5e-4


def test_training_stops_after_five_epochs_without_gain(recipe: Recipe) -> None:
    (stage, *_) = recipe.stages
    assert not should_stop(after([1.0, *[1.2] * 4], recipe), recipe, stage)
    assert should_stop(after([1.0, *[1.2] * 5], recipe), recipe, stage)
    assert not should_stop(after([1.0, *[1.2] * 4, 0.9, 1.2], recipe), recipe, stage)


def test_a_rate_that_falls_along_a_cosine_is_left_alone_to_the_end(recipe: Recipe) -> None:
    stage = recipe.stages[0].model_copy(update={"schedule": "cosine"})
    falling = recipe.model_copy(update={"stages": (stage,)})
    progress = after([1.0, *[1.2] * 8], falling)
    assert progress.learning_rate == 1e-3
    assert not should_stop(progress, falling, stage)


def test_class_weights_make_classes_count_alike() -> None:
    counts = {0: 30, 1: 10, 2: 60}
    weights = class_weights(counts, 3)
    assert [weights[label] * count for label, count in counts.items()] == pytest.approx([100 / 3] * 3)


def test_class_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=np.repeat([0, 2], [7, 3]))
    assert class_weights({0: 7, 2: 3}, 3) == pytest.approx([expected[0], 0.0, expected[1]])


def test_chance_level_is_warned_about() -> None:
    (warning,) = find_warnings([stage((0.4, 0.43))], {0: 40, 1: 60})
    assert "next to nothing" in warning
    assert find_warnings([stage((0.4, 0.43), (0.7, 0.7))], {0: 40, 1: 60}) == []


def test_overfitting_is_warned_about() -> None:
    (warning,) = find_warnings([stage((0.8, 0.8), (0.99, 0.85))], {0: 50, 1: 50})
    assert "Overfitting" in warning
    assert "0.850" in warning
