"""One of the workers that train a network together, or the only one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Worker:
    """Who trains: what of a batch is its share, and how its sums become those of all.

    Attributes:
        rank: From 0; the chief, who logs and keeps the checkpoints, is 0.
        count: Of the workers.
        strategy: A `tf.distribute.Strategy` with one replica a worker; None for the only one.
        cores: That it was told to use; None for all that this process may use.
    """

    rank: int = 0
    count: int = 1
    strategy: Any = None
    cores: int | None = None

    @property
    def is_chief(self) -> bool:
        """Whether it speaks for all."""
        return self.rank == 0

    def scope(self) -> AbstractContextManager[Any]:
        """In which variables are made, so that all workers hold the same."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def compile(self, step: Callable[..., Any], signature: Sequence[Any]) -> Callable[..., Any]:
        """A step as a graph that runs on this worker, together with those of the others."""
        import tensorflow as tf

        if self.strategy is None:
            return tf.function(step, input_signature=signature)  # type: ignore[no-any-return]
        strategy = self.strategy

        def run(*arguments: Any) -> Any:
            return strategy.run(step, args=arguments)

        return tf.function(run, input_signature=signature)  # type: ignore[no-any-return]

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums of some numbers over all workers, the same on each."""
        if self.strategy is None:
            return values
        return tuple(self._add(list(values)).numpy().tolist())

    @cached_property
    def _add(self) -> Callable[..., Any]:
        import tensorflow as tf

        strategy = self.strategy

        def add(values: tf.Tensor) -> tf.Tensor:
            own = strategy.run(tf.identity, args=(values,))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, own, axis=None)

        compiled = tf.function(add, input_signature=[tf.TensorSpec((None,), tf.float64)])
        return lambda values: compiled(tf.constant(values, tf.float64))


ALONE = Worker()
"""The only worker of a training in one process."""


class NoGpuError(RuntimeError):
    """TensorFlow does not find the GPU that a worker was given."""


def use_devices(cores: int, gpus: int) -> None:
    """Let TensorFlow use so many threads, and see that it has its GPUs, before it has done anything here.

    Args:
        cores: Threads.
        gpus: That have to be there.

    Raises:
        NoGpuError: They are not.
    """
    import tensorflow as tf

    if len(tf.config.list_physical_devices("GPU")) < gpus:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise NoGpuError(
            f"Spark gave this worker GPU {given} of {socket.gethostname()}, but TensorFlow finds none there. "
            "Install TensorFlow with CUDA on that machine (docs/installation.md), see that its driver works "
            "(nvidia-smi), or set training.worker_gpus=0."
        )
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
