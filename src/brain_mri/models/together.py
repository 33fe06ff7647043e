"""Synchronous training: several workers take every step together, each on its share of the batch.

The method is data-parallel stochastic gradient descent with an all-reduce of the gradients (Goyal et al.,
"Accurate, Large Minibatch SGD", 2017), by TensorFlow's own `MultiWorkerMirroredStrategy`. A worker's gradient
is that of its summed losses over the rows of the whole batch, so the sum over all workers is what one worker
would have; nothing of an example hangs on which worker has it. What remains is the order of floating-point
sums.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from brain_mri.models.checkpoints import (
    INITIAL,
    find_state,
    pack_weights,
    training_key,
    unpack_weights,
)
from brain_mri.models.loop import Run, TrainingHistory, check_shards, train_stages
from brain_mri.models.network import build_network, in_float32
from brain_mri.models.worker import Worker, use_devices

if TYPE_CHECKING:
    import keras

    from brain_mri.models.checkpoints import Checkpoints
    from brain_mri.models.features import Features
    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards


class CheckpointLostError(RuntimeError):
    """What was kept in the store of checkpoints is not there any more."""


class StatesDifferError(RuntimeError):
    """A state was still being written while workers looked for the latest."""

    start_again = True  # what a launcher does


class Seat(Protocol):
    """What a worker knows of itself and the others; `brain_mri.spark.processes.Seat` is one.

    Attributes:
        rank: From 0.
        addresses: `host:port` of every worker, by rank.
        cores: That this worker may use.
        gpus: That it has.
    """

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def addresses(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def cores(self) -> int: ...  # noqa: D102
    @property
    def gpus(self) -> int: ...  # noqa: D102


class Launcher(Protocol):
    """Runs a function once per worker, all at once; `brain_mri.spark.together.TogetherLauncher` is one."""

    def run(self, function: Callable[[Any], TrainingHistory]) -> list[TrainingHistory]:
        """Return what each worker returned, by rank."""
        ...


def train_together(  # noqa: PLR0917 - as `train_classifier`, and a launcher
    recipe: Recipe,
    train: Shards,
    validation: Shards,
    checkpoints: Checkpoints,
    launcher: Launcher,
    features: Features | None = None,
) -> tuple[keras.Model, TrainingHistory]:
    """Train as :func:`brain_mri.models.loop.train_classifier` does, on all workers of a launcher.

    The chief keeps the state of the training in the store after every epoch. When a worker dies, the launcher
    starts all of them again and they go on from there; so does the same call after this process has died.

    Args:
        recipe: Decides everything; a batch of a stage is that of all workers together.
        train: Labelled images to learn from; every worker reads its share.
        validation: Labelled images that decide about learning rate, stopping and the best weights.
        checkpoints: A store that all workers reach.
        launcher: Starts the workers.
        features: What frozen layers compute, of stages for which it was computed before.

    Returns:
        As `train_classifier`: the trained network, in this process, and the history.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointLostError: The last state cannot be read.
        ValueError: Images or classes are not those of the recipe, or there are none.

    Example:
        >>> network, history = train_together(
        ...     recipe, train, validation, checkpoints, TogetherLauncher(workers=2)
        ... )  # doctest: +SKIP
    """
    check_shards(recipe, train, validation)
    key = training_key(recipe, train, validation, features)
    model = in_float32(build_network(recipe), recipe)
    if find_state(checkpoints, key) is None:
        checkpoints.clear()
        # Workers may have no weights file.
        checkpoints.save(INITIAL, pack_weights(model.get_weights()))
    share = partial(train_share, recipe, train, validation, checkpoints, key, features or {})
    history = launcher.run(share)[0]
    final = find_state(checkpoints, key)
    if final is None or len(final.epochs) != len(history["stages"][-1]["epochs"]):
        raise CheckpointLostError(
            "The last state of the training cannot be read from its store of checkpoints, though it was "
            "written there. Repeat the command: it goes on from the state before."
        )
    model.set_weights(final.best_weights)
    return model, history


def train_share(  # noqa: PLR0917 - a partial of all but the seat is what travels
    recipe: Recipe,
    train: Shards,
    validation: Shards,
    checkpoints: Checkpoints,
    key: str,
    features: Features,
    seat: Seat,
) -> TrainingHistory:
    """Be one of the workers: to be called in a fresh process, before TensorFlow has done anything.

    Raises:
        NoGpuError: TensorFlow does not find the worker's GPU.
        StatesDifferError: Workers found different states in the store.
        CheckpointLostError: The weights to begin with are not there.
    """
    # What TensorFlow reads when it is imported.
    cluster = {"worker": list(seat.addresses)}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": seat.rank}})
    import tensorflow as tf

    use_devices(seat.cores, seat.gpus)
    # Before any tensor is made.
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.NCCL if seat.gpus else kinds.AUTO
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=kind)
    )
    worker = Worker(seat.rank, len(seat.addresses), strategy, seat.cores)
    state = find_state(checkpoints, key)
    place = 0 if state is None else 1_000_000 * len(state.stages) + len(state.epochs)
    if worker.total(place)[0] != place * worker.count:
        raise StatesDifferError("Workers found different states of the training in its store.")
    with worker.scope():
        model = build_network(recipe.model_copy(update={"weights": None}), synchronized=True)
    if state is None:
        initial = checkpoints.load(INITIAL)
        if initial is None:
            raise CheckpointLostError(f"{INITIAL} is missing from the checkpoints. Repeat the command.")
        model.set_weights(unpack_weights(initial))
    run = Run(model, recipe, train, validation, checkpoints, worker, key, features)
    return train_stages(run, state)
