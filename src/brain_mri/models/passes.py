"""How a training set is gone through in a stage: its batches, and the steps that this process takes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from brain_mri.models.augmentation import DRAWS, VIEWS_STAGE, draw
from brain_mri.models.progress import class_weights
from brain_mri.models.steps import Measured, TrainingNetwork, make_train_step, measured

if TYPE_CHECKING:
    import keras

    from brain_mri.models.features import Features, StageFeatures
    from brain_mri.models.loop import Run
    from brain_mri.models.recipe import Recipe, Stage
    from brain_mri.models.shards import Shards

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0

ADAM_EPSILON = 1e-6
"""Ten times Keras' own. Adam divides a gradient by its size and this; where gradients are no larger than what
rounding leaves of their sums, rounding would decide about the step, and workers add in another order."""


class TrainingDiverged(ArithmeticError):  # noqa: N818 - it is what happened, not only an error
    """The loss is no longer a number."""


class Passes(Protocol):
    """How the training set is gone through in a stage."""

    @property
    def variables(self) -> list[Any]:
        """What belongs into a checkpoint beside the weights."""
        ...

    def run(self, epoch: int, learning_rate: float) -> Measured:
        """Go through it once; the network has the weights of then."""
        ...


class OwnPasses:
    """Passes over the training set that this process takes, alone or in step with other workers."""

    def __init__(self, run: Run, number: int, network: TrainingNetwork) -> None:
        self._run, self._number, self._network = run, number, network
        self._optimizer = make_optimizer(run.recipe, number)
        self._rate = math.nan  # it has one that nobody has asked for
        weights = class_weights(run.train.label_counts, len(run.recipe.classes))
        self._step = make_train_step(network, run.model, self._optimizer, run.recipe, weights, run.worker)

    @property
    def variables(self) -> list[Any]:
        """What the optimizer remembers, but for the learning rate, which recipe and epochs decide."""
        rate = self._optimizer._learning_rate
        return [variable for variable in self._optimizer.variables if variable is not rate]

    def run(self, epoch: int, learning_rate: float) -> Measured:
        """Take one step per batch of a freshly shuffled training set."""
        run, worker, stage = self._run, self._run.worker, self._run.recipe.stages[self._number]
        count = -(-run.train.rows // stage.batch_size)
        images, loss_sum, right = 0, 0.0, 0
        started = spoken = time.perf_counter()
        batches = stage_batches(
            run.recipe, self._number, epoch, run.train, run.features, self._network.draws, worker.rank,
            worker.count,
        )  # fmt: skip
        for position, (values, labels, drawn, rows) in enumerate(batches):
            rate = stage.rate_after(epoch - 1 + (position + 1) / count, learning_rate)
            if rate != self._rate:
                self._optimizer.learning_rate = self._rate = rate
            batch_loss, batch_right = self._step(values, labels, drawn, np.float32(rows))
            loss_sum += float(batch_loss)
            right += int(batch_right)
            images += len(labels)
            if worker.count == 1:  # one of several would leave the others waiting for it
                check_finite(loss_sum, f"epoch {epoch} after {images:,} images", stage)
            now = time.perf_counter()
            if now - spoken >= SECONDS_BETWEEN_LINES:
                spoken = now
                log.info(
                    "Epoch %d: %s of %s images, %.0f images/s.", epoch, f"{images:,}",
                    f"{-(-run.train.rows // worker.count):,}", images / (now - started),
                )  # fmt: skip
        return measured(worker, loss_sum, right, images)


def stage_batches(  # noqa: PLR0917 - what decides about an epoch
    recipe: Recipe,
    number: int,
    epoch: int,
    train: Shards,
    features: Features,
    draws: int,
    rank: int,
    workers: int,
    skip: int = 0,
) -> Iterator[tuple[Any, Any, Any, int]]:
    """A worker's share of an epoch of a stage, shuffled and drawn as seed, stage and epoch want it.

    Yields:
        What is stored of a batch, its labels int64 (b,), its draws float32 (b, draws), and the rows of the
        whole batch, that of all workers; the first `skip` batches are left out.
    """
    views, cached = recipe.augmentation.views, features.get(number)
    view = (epoch - 1) % views + 1 if views else epoch
    stored, size = (cached.train[view - 1] if cached else train), recipe.stages[number].batch_size
    order = int(np.random.SeedSequence((recipe.seed, number, epoch)).generate_state(1)[0])
    batches = stored.tensorflow(size, order, rank=rank, workers=workers)
    if skip:
        batches = batches.skip(skip)
    for position, (values, labels, index) in enumerate(batches, start=skip):
        drawn = draw(index.numpy(), recipe.seed, number, epoch, draws)
        if views:
            drawn[:, :DRAWS] = draw(index.numpy(), recipe.seed, VIEWS_STAGE, view)
        yield values, labels, drawn, min(size, train.rows - position * size)


def make_optimizer(recipe: Recipe, number: int) -> keras.optimizers.Optimizer:
    """The optimizer of a stage, with nothing to remember yet."""
    import keras

    rate = recipe.stages[number].learning_rate
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9)
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, epsilon=ADAM_EPSILON)
    return keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON)


def stage_network(model: keras.Model, recipe: Recipe, features: StageFeatures | None) -> TrainingNetwork:
    """The network as a stage calls it: on images, or behind the cut."""
    return TrainingNetwork(model, recipe, *((features.cut, features.dtype) if features else ()))


def check_finite(loss: float, when: str, stage: Stage) -> None:
    """See that a loss is a number.

    Raises:
        TrainingDiverged: It is none.
    """
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"The loss became {loss} in stage {stage.name!r}, {when}. The stage began at learning rate "
            f"{stage.learning_rate:g}: lower it, or look for broken inputs."
        )
