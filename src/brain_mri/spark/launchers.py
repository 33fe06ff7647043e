"""Launchers: run a picklable function on many items, in processes of this machine or as Spark tasks.

Both have the same `map`, so the function does not know where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import joblib

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Item = TypeVar("Item")
Result = TypeVar("Result")


class Launcher(Protocol):
    """Runs a function on items, wherever it likes."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results as they come, in any order; an error in one item ends it."""
        ...


@dataclass(frozen=True)
class ProcessLauncher:
    """Processes on this machine, one a core unless told otherwise.

    Example:
        >>> sorted(ProcessLauncher(workers=2).map(abs, [-1, -2]))
        [1, 2]
    """

    workers: int | None = None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results as they come."""
        workers = min(self.workers or joblib.cpu_count(), len(items))
        # joblib's processes are fresh interpreters: forking one that holds threads of Arrow or a JVM
        # can deadlock.
        yield from joblib.Parallel(n_jobs=max(workers, 1), return_as="generator_unordered")(
            joblib.delayed(function)(item) for item in items
        )


@dataclass(frozen=True)
class SparkLauncher:
    """Spark tasks, one an item: for work on storage that the executors reach themselves."""

    session: SparkSession

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results once all tasks have ended."""
        if items:
            yield from self.session.sparkContext.parallelize(items, len(items)).map(function).collect()
