"""The training loop: stages, epochs, steps.

It is our own and not `keras.Model.fit`, because Keras 3's `fit` does not run under TensorFlow's distribution
strategies; the steps in :mod:`brain_mri.models.steps` need nothing but a gradient tape and `optimizer.apply`,
which do.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from brain_mri.models.checkpoints import TrainingState, find_state, save_state, training_key
from brain_mri.models.estimate import describe_device, estimate_minutes, processor_cores
from brain_mri.models.network import build_network, in_float32, set_trained_layers
from brain_mri.models.passes import OwnPasses, Passes, check_finite, stage_network
from brain_mri.models.progress import (
    EpochRecord,
    Progress,
    StageRecord,
    advance,
    find_warnings,
    should_stop,
)
from brain_mri.models.steps import (
    Step,
    TrainingNetwork,
    evaluate,
    make_evaluation_step,
)
from brain_mri.models.worker import ALONE, Worker

if TYPE_CHECKING:
    import keras

    from brain_mri.models.checkpoints import Checkpoints
    from brain_mri.models.features import Features
    from brain_mri.models.recipe import Recipe, Stage
    from brain_mri.models.shards import Shards

log = logging.getLogger(__name__)


class TrainingHistory(TypedDict):
    """What happened in a training: ready for JSON."""

    stages: list[StageRecord]
    warnings: list[str]
    device: str  # of each worker
    workers: int
    seconds: float


@dataclass
class Run:
    """A training: what stays the same from the first stage to the last, and what is done so far."""

    model: keras.Model
    recipe: Recipe
    train: Shards
    validation: Shards
    checkpoints: Checkpoints
    worker: Worker
    key: str
    features: Features = field(default_factory=dict)
    passes: Callable[[Run, int, TrainingNetwork], Passes] = OwnPasses
    on_epoch: Callable[[EpochRecord], None] = lambda _: None
    seconds: float = 0.0  # of earlier runs of this training
    started: float = field(default_factory=time.perf_counter)
    stages: list[StageRecord] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds of training, breaks left out."""
        return self.seconds + time.perf_counter() - self.started


def train_classifier(  # noqa: PLR0917 - as the other ways to train
    recipe: Recipe,
    train: Shards,
    validation: Shards,
    checkpoints: Checkpoints,
    features: Features | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
) -> tuple[keras.Model, TrainingHistory]:
    """Build a network and train it through all stages of its recipe; it ends with the best weights seen.

    A training that was broken off goes on after its last whole epoch, with the same result as if nothing had
    happened.

    Args:
        recipe: Decides everything.
        train: Labelled images to learn from.
        validation: Labelled images that decide about learning rate, stopping and the best weights.
        checkpoints: Gets the state of the training after every epoch. What another training left there is
            cleared.
        features: What frozen layers compute, of stages for which it was computed before.
        on_epoch: Told after every epoch; what it raises ends the training.

    Returns:
        The trained network, in float32; a record per stage and epoch, and sentences about what looks wrong.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        TrainingDiverged: The loss became NaN or infinite.
        ValueError: Images or classes are not those of the recipe, or there are none.

    Example:
        >>> network, history = train_classifier(recipe, train, validation, checkpoints)  # doctest: +SKIP
        >>> history["stages"][-1]["epochs"][-1]["validation_accuracy"]  # doctest: +SKIP
        0.93
    """
    check_shards(recipe, train, validation)
    key = training_key(recipe, train, validation, features)
    state = find_state(checkpoints, key)
    if state is None:
        checkpoints.clear()
    run = Run(
        build_network(recipe), recipe, train, validation, checkpoints, ALONE, key, features or {},
        on_epoch=on_epoch,
    )  # fmt: skip
    history = train_stages(run, state)
    return in_float32(run.model, recipe), history


def train_stages(run: Run, state: TrainingState | None) -> TrainingHistory:
    """Train a network through all stages, or through those that are left; it ends with the best weights seen.

    Args:
        run: With the weights to begin with.
        state: Where an earlier run of the same training stopped, if there was one.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
    """
    recipe, worker, validation = run.recipe, run.worker, run.validation
    device = describe_device(worker.cores)
    if worker.is_chief:
        _announce(run, device)
    with worker.scope():
        if state:
            run.stages, run.seconds = list(state.stages), state.seconds
            if worker.is_chief:
                log.info(
                    "Going on after epoch %d of stage %r, from the last checkpoint.",
                    len(state.epochs), recipe.stages[len(state.stages)].name,
                )  # fmt: skip
        for number in range(len(run.stages), len(recipe.stages)):
            run.stages.append(_train_stage(run, number, state))
            state = None
            if worker.is_chief:
                log.info(
                    "Stage %r: best epoch %d, validation loss %.4f.", run.stages[-1]["name"],
                    run.stages[-1]["best_epoch"], run.stages[-1]["best_validation_loss"],
                )  # fmt: skip
    warnings = find_warnings(run.stages, validation.label_counts)
    for warning in warnings if worker.is_chief else ():
        log.warning(warning)
    return {
        "stages": run.stages,
        "warnings": warnings,
        "device": device,
        "workers": worker.count,
        "seconds": run.elapsed,
    }


def check_shards(recipe: Recipe, train: Shards, validation: Shards) -> None:
    """See that both sets are of the recipe's size and classes, and not empty.

    Raises:
        ValueError: One is not; the message names both sides.
    """
    for what, shards in (("training", train), ("validation", validation)):
        if shards.rows == 0:
            raise ValueError(f"There are no {what} images.")
        if shards.image_size != recipe.image_size or tuple(shards.classes) != recipe.classes:
            raise ValueError(
                f"The {what} images are {shards.image_size} pixels of classes {', '.join(shards.classes)}; "
                f"the recipe expects {recipe.image_size} pixels of {', '.join(recipe.classes)}. "
                "Run preprocessing again."
            )


def _announce(run: Run, device: str) -> None:
    recipe, workers = run.recipe, run.worker.count
    cores = workers * (run.worker.cores or processor_cores())
    if device.endswith("GPU") or device.endswith("GPUs"):
        duration = "minutes are known after the first epoch"
    else:
        minutes = estimate_minutes(recipe, run.train.rows, run.validation.rows, cores, run.features)
        duration = f"about {max(1, round(minutes))} min"
    log.info(
        "Training %s (recipe %s, weights %s) on %s: %s training and %s validation images, "
        "up to %d epochs, %s.",
        recipe.backbone, recipe.name, recipe.weights or "random",
        device if workers == 1 else f"{workers} workers of {device} each", f"{run.train.rows:,}",
        f"{run.validation.rows:,}", recipe.epochs, duration,
    )  # fmt: skip


def _train_stage(run: Run, number: int, state: TrainingState | None) -> StageRecord:
    """Train one stage, from its beginning or from a state within it."""
    model, recipe, stage = run.model, run.recipe, run.recipe.stages[number]
    set_trained_layers(model, recipe, stage)
    network = stage_network(model, recipe, run.features.get(number))
    evaluation_step = make_evaluation_step(network, run.worker)
    # The weights that a stage begins with have to be beaten.
    best_loss = run.stages[-1]["best_validation_loss"] if run.stages else math.inf
    progress = Progress(stage.learning_rate, best_loss)
    best_weights = model.get_weights()
    epochs: list[EpochRecord] = []
    if state:
        progress, best_weights, epochs = state.progress, state.best_weights, list(state.epochs)
        model.set_weights(state.weights)
    passes = run.passes(run, number, network)
    if state:
        for variable, value in zip(passes.variables, state.optimizer, strict=True):
            variable.assign(value)
    while len(epochs) < stage.epochs and not should_stop(progress, recipe, stage):
        epoch = len(epochs) + 1
        record = _train_epoch(run, number, epoch, passes, evaluation_step, progress.learning_rate)
        epochs.append(record)
        before, progress = progress, advance(progress, epoch, record["validation_loss"], recipe, stage)
        if progress.best_epoch == epoch:
            best_weights = model.get_weights()
        if not run.worker.is_chief:
            continue
        lowered = progress.learning_rate != before.learning_rate
        _log_epoch(stage, record, progress, should_stop(progress, recipe, stage), lowered)
        run.on_epoch(record)
        reached = TrainingState(
            run.key, tuple(run.stages), tuple(epochs), progress, run.elapsed, model.get_weights(),
            [np.asarray(variable) for variable in passes.variables], best_weights,
        )  # fmt: skip
        save_state(run.checkpoints, reached)
    model.set_weights(best_weights)
    return {
        "name": stage.name,
        "epochs": epochs,
        "best_epoch": progress.best_epoch,
        "best_validation_loss": progress.best_loss,
        "stopped_early": should_stop(progress, recipe, stage),
        "trained_parameters": int(sum(np.prod(variable.shape) for variable in model.trainable_variables)),
    }


def _train_epoch(  # noqa: PLR0917 - what an epoch hangs on
    run: Run, number: int, epoch: int, passes: Passes, evaluation_step: Step, learning_rate: float
) -> EpochRecord:
    started = time.perf_counter()
    trained = passes.run(epoch, learning_rate)
    passed = time.perf_counter()
    stage = run.recipe.stages[number]
    check_finite(trained.loss, f"epoch {epoch}", stage)
    features = run.features.get(number)
    checked = evaluate(evaluation_step, features.validation if features else run.validation, run.worker)
    check_finite(checked.loss, f"validation after epoch {epoch}", stage)
    record: EpochRecord = {
        "epoch": epoch,
        "loss": trained.loss,
        "accuracy": trained.accuracy,
        "validation_loss": checked.loss,
        "validation_accuracy": checked.accuracy,
        "validation_macro_f1": checked.macro_f1 or 0.0,
        "learning_rate": stage.rate_after(epoch - 0.5, learning_rate),
        "images_per_second": run.train.rows / (trained.seconds or passed - started),
        "seconds": time.perf_counter() - started,
    }
    if trained.staleness is not None:
        record["staleness"] = trained.staleness
    return record


def _log_epoch(stage: Stage, record: EpochRecord, progress: Progress, stops: bool, lowered: bool) -> None:
    log.info(
        "Stage %r epoch %d/%d: loss %.4f, accuracy %.3f, validation loss %.4f, validation accuracy %.3f, "
        "%.0f images/s, %.0f s.",
        stage.name, record["epoch"], stage.epochs, record["loss"], record["accuracy"],
        record["validation_loss"], record["validation_accuracy"], record["images_per_second"],
        record["seconds"],
    )  # fmt: skip
    left = stage.epochs - record["epoch"]
    if stops:
        log.info(
            "Stage %r stops early: no better validation loss for %d epochs.", stage.name, progress.waited
        )
    elif lowered:
        log.info("Learning rate lowered to %.2g: validation loss is on a plateau.", progress.learning_rate)
    if record["epoch"] == 1 and left:
        log.info("Stage %r: at this pace %.1f more minutes.", stage.name, left * record["seconds"] / 60)
