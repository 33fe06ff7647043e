"""Decisions after an epoch, on plain numbers: keep the weights, lower the learning rate, stop, warn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from brain_mri.models.recipe import Recipe, Stage

CHANCE_MARGIN = 0.05
OVERFITTING_GAP = 0.10


class EpochRecord(TypedDict):
    """One line of the history. Accuracies are shares; `loss` and `accuracy` are of augmented images.

    `learning_rate` is that of the middle of the epoch.

    `staleness` is there for asynchronous training: updates of others between an update's pull and push.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    learning_rate: float
    images_per_second: float
    seconds: float
    staleness: NotRequired[float]


class StageRecord(TypedDict):
    """What happened in one stage; `best_epoch` is 0 where no epoch beat the weights it began with."""

    name: str
    epochs: list[EpochRecord]
    best_epoch: int
    best_validation_loss: float
    stopped_early: bool
    trained_parameters: int


@dataclass(frozen=True)
class Progress:
    """Where a stage stands.

    Attributes:
        learning_rate: For the next epoch.
        best_loss: Lowest validation loss so far.
        best_epoch: When that was; 0 is before the first epoch of the stage.
        waited: Epochs since then.
        waited_at_rate: Epochs since then, or since the learning rate was last lowered.
    """

    learning_rate: float
    best_loss: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    waited_at_rate: int = 0


def advance(progress: Progress, epoch: int, validation_loss: float, recipe: Recipe, stage: Stage) -> Progress:
    """Account for the validation loss of an epoch.

    Args:
        progress: Before the epoch.
        epoch: Its number, from 1.
        validation_loss: Measured after it.
        recipe: Names the patience and factor of the plateau.
        stage: Says whether the rate is lowered on a plateau.

    Returns:
        The progress after it; the weights are the best so far where its `best_epoch` equals `epoch`.
    """
    if validation_loss < progress.best_loss:
        return replace(progress, best_loss=validation_loss, best_epoch=epoch, waited=0, waited_at_rate=0)
    waited_at_rate = progress.waited_at_rate + 1
    if waited_at_rate < recipe.plateau_patience or stage.schedule != "plateau":
        return replace(progress, waited=progress.waited + 1, waited_at_rate=waited_at_rate)
    lowered = progress.learning_rate * recipe.plateau_factor
    return replace(progress, learning_rate=lowered, waited=progress.waited + 1, waited_at_rate=0)


def should_stop(progress: Progress, recipe: Recipe, stage: Stage) -> bool:
    """Whether the validation loss has not fallen for as long as the recipe is patient.

    Where the rate falls along a cosine, the last epochs are the best ones, so all of them are waited for.
    """
    return stage.schedule == "plateau" and progress.waited >= recipe.early_stopping_patience


def class_weights(label_counts: Mapping[int, int], classes: int) -> list[float]:
    """Weights under which every class counts alike: ``rows / (classes × rows of the class)``.

    The definition is scikit-learn's `class_weight="balanced"`. Only classes that occur count; one without
    rows gets 0. The report shows the same numbers.

    Example:
        >>> class_weights({0: 30, 1: 10}, 2)
        [0.6666666666666666, 2.0]
    """
    rows = sum(label_counts.values())
    counts = [label_counts.get(label, 0) for label in range(classes)]
    present = sum(count > 0 for count in counts)
    return [rows / (present * count) if count else 0.0 for count in counts]


def find_warnings(stages: Sequence[StageRecord], validation_counts: Mapping[int, int]) -> list[str]:
    """Sentences about what looks wrong with a finished training; an empty list is good news.

    Args:
        stages: The history.
        validation_counts: Validation images per label; the largest share is what a constant answer reaches.
    """
    warnings = []
    accuracies = [record["validation_accuracy"] for stage in stages for record in stage["epochs"]]
    chance = max(validation_counts.values()) / sum(validation_counts.values())
    if max(accuracies) < chance + CHANCE_MARGIN:
        warnings.append(
            f"The network learned next to nothing: its best validation accuracy is {max(accuracies):.3f}, "
            f"and always answering the commonest class gives {chance:.3f}. "
            "Check labels, weights and learning rate."
        )
    for stage in stages:
        last = stage["epochs"][-1]
        gap = last["accuracy"] - last["validation_accuracy"]
        if gap > OVERFITTING_GAP:
            warnings.append(
                f"Overfitting in stage {stage['name']!r}: accuracy is {last['accuracy']:.3f} on training "
                f"scans and {last['validation_accuracy']:.3f} on validation scans. "
                "More data or stronger augmentation may help."
            )
    return warnings
