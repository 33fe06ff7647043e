"""A parameter server: workers pull weights from it, train on their own, and push what that changed.

As in Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012, and Elephas, with a bound on how far
one worker may be ahead of another (Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel
Parameter Server", NIPS 2013). It lives in threads of the driver; nothing here knows TensorFlow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Listener
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brain_mri.models.questions import Asker, Desk

LEAD = 1
"""Epochs that a worker may be ahead of the slowest, and of the validation."""

RECENCY = 3
"""How much more the latest weights count in the mean of an epoch; 0: all alike."""

_PAUSE = 1.0

Weights = list[NDArray[Any]]


class Assignment(NamedTuple):
    """What a worker does next: an epoch of a stage, of which it has pushed `done` batches already."""

    stage: int
    epoch: int
    done: int


class Pulled(NamedTuple):
    """The weights of a moment; `version` counts the updates before it."""

    version: int
    weights: Weights
    learning_rate: float


class Update(NamedTuple):
    """What a worker has learned since it pulled.

    Attributes:
        rank: Of the worker.
        assignment: That it works on, with the batches that are done now.
        ends: Whether its epoch has ended.
        version: Of the weights that it pulled.
        change: Its weights less those.
        loss_sum: Of the losses of its images.
        right: Answers among them.
        images: How many.
    """

    rank: int
    assignment: Assignment
    ends: bool
    version: int
    change: Weights
    loss_sum: float
    right: int
    images: int


class EpochSums(NamedTuple):
    """What all workers have pushed of an epoch, and the seconds from its first start to its last end."""

    loss_sum: float = 0.0
    right: int = 0
    images: int = 0
    updates: int = 0
    stale: int = 0
    seconds: float = 0.0


class ParameterServer:
    """Holds the weights of a stage and adds the workers' changes, each divided by the number of workers.

    Workers that push in turn leave the weights less steady than steps of the whole batch do. So an epoch is
    measured, and kept, by the mean of its weights, the latest counting most: polynomial-decay averaging
    (Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013).

    Args:
        workers: How many.
        key: That a worker must know; it is never sent.
    """

    def __init__(self, workers: int, key: bytes) -> None:
        self._workers, self._key = workers, key
        self._desk: Desk | None = None
        self._changed = threading.Condition()
        self._whole: Weights = []
        self._weights: Weights = []
        self._mean: Weights = []
        self._version, self._averaged, self._rate = 0, 0, 0.0
        self._stage, self._epochs, self._ended = -1, 0, False
        self._finished = [0] * workers  # epochs of the stage, by rank
        self._done = [0] * workers  # batches of the epoch, by rank
        self._awaited = 0  # epoch that the driver waits for, or validates the one before
        self._sums: dict[int, EpochSums] = {}
        self._begun: dict[int, float] = {}

    # -- for the driver

    def begin(
        self, stage: int, whole: Weights, shared: Sequence[NDArray[Any]], finished: int, epochs: int
    ) -> None:
        """Let workers start a stage.

        Args:
            stage: Its number.
            whole: All weights of the network.
            shared: Those that change.
            finished: Epochs that are over already.
            epochs: Of the stage.
        """
        with self._changed:
            self._whole, self._weights = whole, [np.array(value) for value in shared]
            self._mean, self._averaged = [value.copy() for value in self._weights], 0
            self._stage, self._epochs = stage, epochs
            self._finished, self._done = [finished] * self._workers, [0] * self._workers
            self._sums, self._begun, self._awaited = {}, {}, finished + 1
            self._changed.notify_all()

    def set_rate(self, rate: float) -> None:
        """The learning rate that workers take from now on."""
        with self._changed:
            self._rate = rate

    def wait_for(self, epoch: int, check: Callable[[], None]) -> tuple[EpochSums, Weights]:
        """Wait until every worker has finished an epoch.

        Args:
            epoch: Its number.
            check: Called every second; it raises if that will never be.

        Returns:
            What was pushed of it, and the mean weights since the epoch before.
        """
        with self._changed:
            self._awaited = epoch
            self._changed.notify_all()
            while min(self._finished) < epoch:
                self._changed.wait(_PAUSE)
                check()
            self._averaged = 0
            return self._sums[epoch], [value.copy() for value in self._mean]

    def end(self) -> None:
        """Send all workers home, those too that come later."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        self.end()
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.close()

    def serve(self, listener: Listener) -> None:
        """Let workers in, each in a thread of its own, until it is closed."""
        answers: dict[str, Callable[..., Any]] = {
            "next": self.next,
            "whole": self.whole,
            "pull": self.pull,
            "push": self.push,
        }
        self._desk = Desk(listener, self._key, answers)

    # -- for a worker

    def next(self, rank: int) -> Assignment | None:
        """What a worker does next, once it may; None when all is over."""
        with self._changed:
            while not self._ended:
                epoch = self._finished[rank] + 1
                if self._stage >= 0 and epoch <= min(self._epochs, self._awaited + LEAD):
                    self._begun.setdefault(epoch, time.perf_counter())
                    return Assignment(self._stage, epoch, self._done[rank])
                self._changed.wait(_PAUSE)
            return None

    def whole(self) -> Weights:
        """All weights of the network, as the stage began with them."""
        with self._changed:
            return self._whole

    def pull(self, stage: int) -> Pulled | None:
        """The weights that change in a stage, as they are now; None when it is over."""
        with self._changed:
            if self._ended or stage != self._stage:
                return None
            return Pulled(self._version, [value.copy() for value in self._weights], self._rate)

    def push(self, update: Update) -> bool:
        """Add a change; False where its stage is over, or another attempt of the worker was first."""
        rank, (stage, epoch, done) = update.rank, update.assignment
        with self._changed:
            expected = stage == self._stage and epoch == self._finished[rank] + 1 and done > self._done[rank]
            if self._ended or not expected:
                return False
            self._averaged += 1
            share = np.float32(min(1.0, (RECENCY + 1) / (self._averaged + RECENCY)))
            for value, mean, change in zip(self._weights, self._mean, update.change, strict=True):
                np.add(value, change / self._workers, out=value)
                np.add(mean, share * (value - mean), out=mean)
            before = self._sums.get(epoch, EpochSums())
            self._sums[epoch] = EpochSums(
                before.loss_sum + update.loss_sum, before.right + update.right, before.images + update.images,
                before.updates + 1, before.stale + self._version - update.version,
                time.perf_counter() - self._begun.setdefault(epoch, time.perf_counter()),
            )  # fmt: skip
            self._version += 1
            self._done[rank] = done
            if update.ends:
                self._finished[rank], self._done[rank] = epoch, 0
                self._changed.notify_all()
            return True


class RemoteServer:
    """A parameter server as a worker has it: the same questions, asked through a socket.

    Raises:
        AuthenticationError: The key is another one.
        ConnectionError: Nobody is there, or not any more.
    """

    def __init__(self, address: tuple[str, int], key: bytes) -> None:
        self._ask = Asker(address, key)

    def next(self, rank: int) -> Assignment | None:
        """As :meth:`ParameterServer.next`."""
        return self._ask("next", rank)  # type: ignore[no-any-return]

    def whole(self) -> Weights:
        """As :meth:`ParameterServer.whole`."""
        return self._ask("whole")  # type: ignore[no-any-return]

    def pull(self, stage: int) -> Pulled | None:
        """As :meth:`ParameterServer.pull`."""
        return self._ask("pull", stage)  # type: ignore[no-any-return]

    def push(self, update: Update) -> bool:
        """As :meth:`ParameterServer.push`."""
        return self._ask("push", update)  # type: ignore[no-any-return]
