"""Launchers: run a picklable function on many items, in processes of this machine or as Spark tasks.

Both have the same `map`, so the function does not know where it runs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import joblib

from brain_mri.spark.failures import explained
from brain_mri.spark.session import get_session
from brain_mri.storage.faults import StorageError

_JOBS_AT_ONCE = 64

Item = TypeVar("Item")
Result = TypeVar("Result")

WithProgress: TypeAlias = Callable[[Iterator[Any]], Iterator[Any]]
"""What results pass through on their way to whoever waits for them; `iter` lets them pass unseen."""


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
            joblib.delayed(_run)(function, item, dict(os.environ)) for item in items
        )


def _run(function: Callable[[Item], Result], item: Item, environment: dict[str, str]) -> Result:
    os.environ.update(
        environment
    )  # joblib keeps processes, also those that were there before HADOOP_CONF_DIR
    return function(item)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | StorageError:
    """The result, or what is wrong with the storage: as a result, since Spark repeats whatever is raised."""
    try:
        return function(item)
    except StorageError as error:
        return error


@dataclass(frozen=True)
class SparkLauncher:
    """Spark tasks, one an item: for work on storage that the executors reach themselves.

    The session starts with the first item. Every item is a Spark job of its own, started by a thread, since a
    job gives its results only when all its tasks have ended. Spark repeats a task that fails or whose
    executor dies, but not one to which the storage is lost: the task has waited for it already, and to do so
    four times would take minutes.

    Example:
        >>> sorted(SparkLauncher().map(abs, [-1, -2]))  # doctest: +SKIP
        [1, 2]
    """

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results as they come."""
        if not items:
            return
        context = get_session().sparkContext
        group = f"items {uuid.uuid4()}"
        named = getattr(function, "func", function)  # of a partial, the function that it is of
        name = getattr(named, "__name__", "a function on an item")

        def run(item: Item) -> Result:
            context.setJobGroup(group, name, True)
            with explained():
                outcome = context.parallelize([item], 1).map(partial(_attempt, function)).collect()[0]
            if isinstance(outcome, StorageError):
                raise outcome
            result: Result = outcome
            return result

        # Executors may still be on their way when this is asked; a job that waits for a core costs nothing.
        threads = max(context.defaultParallelism, _JOBS_AT_ONCE)
        with ThreadPoolExecutor(min(threads, max(len(items), 1))) as pool:
            jobs = [pool.submit(run, item) for item in items]
            try:
                for job in as_completed(jobs):
                    yield job.result()
            finally:  # an error, or whoever asked wants no more
                for job in jobs:
                    job.cancel()
                context.cancelJobGroup(group)
