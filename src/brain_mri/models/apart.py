"""Asynchronous training: workers learn at their own pace and share what they learned through a server.

A worker pulls the weights, trains some steps on its share of the data with an optimizer of its own, and
pushes the change (:mod:`brain_mri.models.parameter_server`). Nobody waits for a slower one but who is an
epoch ahead of it. So the result depends on who was faster; that it is as good is what the tests show, and how
stale updates were is in the history.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Listener
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from brain_mri.models.checkpoints import find_state, training_key
from brain_mri.models.loop import Run, TrainingHistory, check_shards, train_stages
from brain_mri.models.network import build_network, in_float32, set_trained_layers
from brain_mri.models.parameter_server import (
    Assignment,
    ParameterServer,
    Pulled,
    RemoteServer,
    Update,
)
from brain_mri.models.passes import make_optimizer, stage_batches, stage_network
from brain_mri.models.progress import class_weights
from brain_mri.models.steps import Measured, make_train_step
from brain_mri.models.worker import ALONE, use_devices

if TYPE_CHECKING:
    import keras

    from brain_mri.models.checkpoints import Checkpoints
    from brain_mri.models.features import Features
    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards
    from brain_mri.models.steps import TrainingNetwork
    from brain_mri.models.together import Seat

log = logging.getLogger(__name__)


class Launcher(Protocol):
    """Runs a function once per worker, each on its own; `brain_mri.spark.apart.ApartLauncher` is one.

    Attributes:
        workers: How many.
    """

    @property
    def workers(self) -> int: ...  # noqa: D102

    def open_listener(self) -> tuple[Listener, tuple[str, int]]:
        """A socket of this process that workers reach, and its address for them."""
        ...

    def run(self, function: Callable[[Any], int]) -> list[int]:
        """Return what each worker returned, by rank; one that dies is started again alone."""
        ...


def train_apart(  # noqa: PLR0917 - as `train_together`
    recipe: Recipe,
    train: Shards,
    validation: Shards,
    checkpoints: Checkpoints,
    launcher: Launcher,
    features: Features | None = None,
    push_every: int | None = 1,
) -> tuple[keras.Model, TrainingHistory]:
    """Train as :func:`brain_mri.models.loop.train_classifier`, by workers that do not wait for each other.

    This process holds the weights, validates after every epoch and keeps the checkpoints. Workers' optimizers
    are not among those: after a break they begin anew, with the weights of the last epoch.

    Args:
        recipe: Decides everything but the order of updates; a batch of a stage is that of all workers.
        train: Labelled images to learn from; every worker reads its share.
        validation: Labelled images that decide about learning rate, stopping and the best weights.
        checkpoints: A store that this process reaches.
        launcher: Starts the workers.
        features: What frozen layers compute, of stages for which it was computed before.
        push_every: Steps between a pull and the next push; None for an epoch.

    Returns:
        As `train_classifier`: the trained network, and the history, with the staleness of every epoch.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        TrainingDiverged: The loss became NaN or infinite.
        ValueError: Images or classes are not those of the recipe, or there are none.
    """
    check_shards(recipe, train, validation)
    whole = f"{training_key(recipe, train, validation, features)} asynchronous"
    key = hashlib.sha256(whole.encode()).hexdigest()  # what another way left has an optimizer
    state = find_state(checkpoints, key)
    if state is None:
        checkpoints.clear()
    log.info(
        "%d workers push what they have learned every %s; this process validates.", launcher.workers,
        {None: "epoch", 1: "step"}.get(push_every, f"{push_every} steps"),
    )  # fmt: skip
    secret = secrets.token_bytes(32)
    server = ParameterServer(launcher.workers, secret)
    listener, address = launcher.open_listener()
    server.serve(listener)
    work = partial(work_apart, recipe, train, features or {}, address, secret, push_every)
    try:
        with ThreadPoolExecutor(1) as thread:
            workers = thread.submit(launcher.run, work)
            try:
                run = Run(
                    build_network(recipe), recipe, train, validation, checkpoints, ALONE, key, features or {},
                    partial(ServedPasses, server, workers),
                )  # fmt: skip
                history = train_stages(run, state)
            finally:
                server.end()
            error = workers.exception()
    finally:
        server.close()
    if error is not None:  # all epochs are there
        log.warning("A worker did not end well when all was over: %s", error)
    return in_float32(run.model, recipe), {**history, "workers": launcher.workers}


class ServedPasses:
    """Passes over the training set that workers take; this process waits for them."""

    def __init__(
        self,
        server: ParameterServer,
        workers: Future[list[int]],
        run: Run,
        number: int,
        network: TrainingNetwork,
    ) -> None:
        self._server, self._workers = server, workers
        self._run, self._number, self._begun = run, number, False
        self.variables: list[Any] = []  # workers' optimizers are their own

    def run(self, epoch: int, learning_rate: float) -> Measured:
        """Wait until all workers have finished the epoch, and take over the mean of its weights."""
        variables = shared_variables(self._run.model)
        self._server.set_rate(learning_rate)
        if not self._begun:
            epochs = self._run.recipe.stages[self._number].epochs
            values = [np.asarray(variable) for variable in variables]
            self._server.begin(self._number, self._run.model.get_weights(), values, epoch - 1, epochs)
            self._begun = True
        sums, weights = self._server.wait_for(epoch, self._check)
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)
        return Measured(
            sums.loss_sum / sums.images, sums.right / sums.images, sums.stale / sums.updates, sums.seconds
        )

    def _check(self) -> None:
        if self._workers.done():
            self._workers.result()
            raise RuntimeError("The workers have left before the training was over.")


def shared_variables(model: keras.Model) -> list[Any]:
    """What changes in a stage: trained variables, and the statistics of the head's batch normalisation."""
    import keras

    statistics = [
        variable
        for layer in model.layers  # of the backbone, batch normalisation is frozen
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.non_trainable_variables
    ]
    return [*model.trainable_variables, *statistics]


def work_apart(  # noqa: PLR0917 - a partial of all but the seat is what travels
    recipe: Recipe,
    train: Shards,
    features: Features,
    address: tuple[str, int],
    secret: bytes,
    push_every: int | None,
    seat: Seat,
) -> int:
    """Be one of the workers, in a process of its own, until the server sends it home.

    Returns:
        The images that it has seen.
    """
    use_devices(seat.cores, seat.gpus)
    server = RemoteServer(address, secret)
    model = build_network(recipe.model_copy(update={"weights": None}))  # there may be no weights file here
    learner: _Learner | None = None
    images = 0
    while (assignment := server.next(seat.rank)) is not None:
        if learner is None or learner.stage != assignment.stage:
            model.set_weights(server.whole())
            learner = _Learner(model, recipe, train, features, assignment.stage)
        images += learner.learn(server, assignment, seat.rank, len(seat.addresses), push_every)
    return images


class _Learner:
    """A worker in a stage: network, step and optimizer."""

    def __init__(
        self, model: keras.Model, recipe: Recipe, train: Shards, features: Features, stage: int
    ) -> None:
        self.stage = stage
        self._model, self._recipe, self._train, self._features = model, recipe, train, features
        set_trained_layers(model, recipe, recipe.stages[stage])
        self._network = stage_network(model, recipe, features.get(stage))
        self._optimizer = make_optimizer(recipe, stage)
        weights = class_weights(train.label_counts, len(recipe.classes))
        self._step = make_train_step(self._network, model, self._optimizer, recipe, weights)
        self._shared = shared_variables(model)

    def learn(
        self, server: RemoteServer, assignment: Assignment, rank: int, workers: int, push_every: int | None
    ) -> int:
        """Work through what is left of an epoch; the number of images."""
        train, size = self._train, self._recipe.stages[self.stage].batch_size
        batches = -(-train.rows // size)
        started, images = time.perf_counter(), 0
        pending: Pulled | None = None
        loss_sum, right, seen = 0.0, 0, 0
        share = stage_batches(
            self._recipe, self.stage, assignment.epoch, train, self._features, self._network.draws, rank,
            workers, assignment.done,
        )  # fmt: skip
        for done, (values, labels, drawn, _) in enumerate(share, start=assignment.done + 1):
            if pending is None:
                pending = self._pull(server, workers, assignment.epoch - 1 + done / batches)
                if pending is None:
                    return images
                loss_sum, right, seen = 0.0, 0, 0
            if len(labels):
                loss, answers = self._step(values, labels, drawn, np.float32(len(labels)))
                loss_sum, right, seen = loss_sum + float(loss), right + int(answers), seen + len(labels)
            if done == batches or (push_every and (done - assignment.done) % push_every == 0):
                change = [
                    np.asarray(variable) - before
                    for variable, before in zip(self._shared, pending.weights, strict=True)
                ]
                update = Update(
                    rank, assignment._replace(done=done), done == batches, pending.version, change, loss_sum,
                    right, seen,
                )  # fmt: skip
                images += seen
                if not server.push(update):
                    return images
                pending = None
        log.info("Epoch %d: %.0f images/s.", assignment.epoch, images / (time.perf_counter() - started))
        return images

    def _pull(self, server: RemoteServer, workers: int, epochs: float) -> Pulled | None:
        pulled = server.pull(self.stage)
        if pulled is None:
            return None
        for variable, value in zip(self._shared, pulled.weights, strict=True):
            variable.assign(value)
        # Adam on a part of the batch takes steps that are smaller by the root of their number, seen together
        # (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022).
        adapts = self._recipe.optimizer != "sgd"
        rate = self._recipe.stages[self.stage].rate_after(epochs, pulled.learning_rate)
        self._optimizer.learning_rate = rate * (math.sqrt(workers) if adapts else 1)
        return pulled
