"""The training loop: stages, epochs, steps.

It is our own and not `keras.Model.fit`, because Keras 3's `fit` does not run under TensorFlow's distribution
strategies; the steps in :mod:`brain_mri.models.steps` need nothing but a gradient tape and `optimizer.apply`,
which do.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from brain_mri.models.augmentation import draw
from brain_mri.models.checkpoints import checkpoint_name, pack_weights
from brain_mri.models.estimate import describe_device, estimate_minutes, processor_cores
from brain_mri.models.network import build_network, set_trained_layers
from brain_mri.models.progress import (
    EpochRecord,
    Progress,
    StageRecord,
    advance,
    class_weights,
    find_warnings,
    should_stop,
)
from brain_mri.models.steps import Measured, Step, evaluate, make_evaluation_step, make_train_step

if TYPE_CHECKING:
    import keras

    from brain_mri.models.checkpoints import Checkpoints
    from brain_mri.models.recipe import Recipe, Stage
    from brain_mri.models.shards import Shards

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class TrainingDiverged(ArithmeticError):  # noqa: N818 - it is what happened, not only an error
    """The loss is no longer a number."""


class TrainingHistory(TypedDict):
    """What happened in a training: ready for JSON."""

    stages: list[StageRecord]
    warnings: list[str]
    device: str
    seconds: float


class _Run(NamedTuple):
    """What stays the same from the first stage to the last."""

    model: keras.Model
    recipe: Recipe
    train: Shards
    validation: Shards
    checkpoints: Checkpoints


def train_classifier(
    recipe: Recipe, train: Shards, validation: Shards, checkpoints: Checkpoints
) -> tuple[keras.Model, TrainingHistory]:
    """Build a network and train it through all stages of its recipe; it ends with the best weights seen.

    All arguments are picklable, so the same function runs in a task elsewhere.

    Args:
        recipe: Decides everything.
        train: Labelled images to learn from.
        validation: Labelled images that decide about learning rate, stopping and the best weights.
        checkpoints: Gets the weights of a stage whenever they are its best yet; what an earlier training left
            there is cleared.

    Returns:
        The trained network; a record per stage and epoch, and sentences about what looks wrong.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        TrainingDiverged: The loss became NaN or infinite.
        ValueError: Images or classes are not those of the recipe, or there are none.

    Example:
        >>> network, history = train_classifier(recipe, train, validation, checkpoints)  # doctest: +SKIP
        >>> history["stages"][-1]["epochs"][-1]["validation_accuracy"]  # doctest: +SKIP
        0.93
    """
    _check_shards(recipe, train, "training")
    _check_shards(recipe, validation, "validation")
    started = time.perf_counter()
    device = describe_device()
    _announce(recipe, train, validation, device)
    run = _Run(build_network(recipe), recipe, train, validation, checkpoints)
    checkpoints.clear()
    stages: list[StageRecord] = []
    best_loss = math.inf
    for number, stage in enumerate(recipe.stages):
        record = _train_stage(run, number, best_loss)
        best_loss = record["best_validation_loss"]
        stages.append(record)
        log.info(
            "Stage %r: best epoch %d, validation loss %.4f.", stage.name, record["best_epoch"], best_loss
        )
    warnings = find_warnings(stages, validation.label_counts)
    for warning in warnings:
        log.warning(warning)
    seconds = time.perf_counter() - started
    return run.model, {"stages": stages, "warnings": warnings, "device": device, "seconds": seconds}


def _check_shards(recipe: Recipe, shards: Shards, what: str) -> None:
    if shards.rows == 0:
        raise ValueError(f"There are no {what} images.")
    if shards.image_size != recipe.image_size or tuple(shards.classes) != recipe.classes:
        raise ValueError(
            f"The {what} images are {shards.image_size} pixels of classes {', '.join(shards.classes)}; the "
            f"recipe expects {recipe.image_size} pixels of {', '.join(recipe.classes)}. "
            "Run preprocessing again."
        )


def _announce(recipe: Recipe, train: Shards, validation: Shards, device: str) -> None:
    if device.endswith("GPU") or device.endswith("GPUs"):
        duration = "minutes are known after the first epoch"
    else:
        minutes = estimate_minutes(recipe, train.rows, validation.rows, processor_cores())
        duration = f"about {max(1, round(minutes))} min"
    log.info(
        "Training %s (recipe %s, weights %s) on %s: %s training and %s validation images, "
        "up to %d epochs, %s.",
        recipe.backbone, recipe.name, recipe.weights or "random", device, f"{train.rows:,}",
        f"{validation.rows:,}", recipe.epochs, duration,
    )  # fmt: skip


def _train_stage(run: _Run, number: int, best_loss: float) -> StageRecord:
    """Train one stage; `best_loss` is that of the weights it begins with, which it must beat."""
    import keras

    model, recipe, stage = run.model, run.recipe, run.recipe.stages[number]
    set_trained_layers(model, recipe, stage)
    optimizer = keras.optimizers.Adam(stage.learning_rate)
    weights = class_weights(run.train.label_counts, len(recipe.classes))
    step = make_train_step(model, optimizer, recipe, weights)
    evaluation_step = make_evaluation_step(model, recipe)
    progress = Progress(stage.learning_rate, best_loss)
    best_weights = model.get_weights()
    epochs: list[EpochRecord] = []
    for epoch in range(1, stage.epochs + 1):
        record = _train_epoch(
            run,
            number,
            epoch,
            step=step,
            evaluation_step=evaluation_step,
            learning_rate=progress.learning_rate,
        )
        epochs.append(record)
        _log_epoch(stage, record)
        progress = advance(progress, epoch, record["validation_loss"], recipe)
        if progress.best_epoch == epoch:
            best_weights = model.get_weights()
            run.checkpoints.save(checkpoint_name(number, stage.name), pack_weights(best_weights))
        if should_stop(progress, recipe):
            log.info(
                "Stage %r stops early: no better validation loss for %d epochs.", stage.name, progress.waited
            )
            break
        if progress.learning_rate != record["learning_rate"]:
            log.info(
                "Learning rate lowered to %.2g: validation loss is on a plateau.", progress.learning_rate
            )
        optimizer.learning_rate = progress.learning_rate
    model.set_weights(best_weights)
    return {
        "name": stage.name,
        "epochs": epochs,
        "best_epoch": progress.best_epoch,
        "best_validation_loss": progress.best_loss,
        "stopped_early": should_stop(progress, recipe),
        "trained_parameters": int(sum(np.prod(variable.shape) for variable in model.trainable_variables)),
    }


def _train_epoch(
    run: _Run, number: int, epoch: int, *, step: Step, evaluation_step: Step, learning_rate: float
) -> EpochRecord:
    started = time.perf_counter()
    measured = _run_training_pass(step, run, number, epoch)
    trained = time.perf_counter()
    checked = evaluate(evaluation_step, run.validation)
    _check_finite(checked.loss, f"validation after epoch {epoch}", run.recipe.stages[number])
    return {
        "epoch": epoch,
        "loss": measured.loss,
        "accuracy": measured.accuracy,
        "validation_loss": checked.loss,
        "validation_accuracy": checked.accuracy,
        "learning_rate": learning_rate,
        "images_per_second": run.train.rows / (trained - started),
        "seconds": time.perf_counter() - started,
    }


def _run_training_pass(step: Step, run: _Run, number: int, epoch: int) -> Measured:
    """Take one step per batch of a freshly shuffled training set."""
    train, recipe, stage = run.train, run.recipe, run.recipe.stages[number]
    order = int(np.random.SeedSequence((recipe.seed, number, epoch)).generate_state(1)[0])
    images, loss_sum, right = 0, 0.0, 0
    started = spoken = time.perf_counter()
    for pixels, labels, index in train.tensorflow(stage.batch_size, shuffle_seed=order):
        draws = draw(index.numpy(), recipe.seed, number, epoch)
        batch_loss, batch_right = step(pixels, labels, draws)
        loss_sum += float(batch_loss)
        right += int(batch_right)
        images += len(labels)
        _check_finite(loss_sum, f"epoch {epoch} after {images:,} images", stage)
        now = time.perf_counter()
        if now - spoken >= SECONDS_BETWEEN_LINES:
            spoken = now
            rate = images / (now - started)
            log.info(
                "Epoch %d: %s of %s images, %.0f images/s.", epoch, f"{images:,}", f"{train.rows:,}", rate
            )
    return Measured(loss_sum / images, right / images)


def _check_finite(loss: float, when: str, stage: Stage) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"The loss became {loss} in stage {stage.name!r}, {when}. The stage began at learning rate "
            f"{stage.learning_rate:g}: lower it, or look for broken inputs."
        )


def _log_epoch(stage: Stage, record: EpochRecord) -> None:
    log.info(
        "Stage %r epoch %d/%d: loss %.4f, accuracy %.3f, validation loss %.4f, validation accuracy %.3f, "
        "%.0f images/s, %.0f s.",
        stage.name, record["epoch"], stage.epochs, record["loss"], record["accuracy"],
        record["validation_loss"], record["validation_accuracy"], record["images_per_second"],
        record["seconds"],
    )  # fmt: skip
    left = stage.epochs - record["epoch"]
    if record["epoch"] == 1 and left:
        log.info("Stage %r: at this pace %.1f more minutes.", stage.name, left * record["seconds"] / 60)
