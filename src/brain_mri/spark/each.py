"""A launcher for functions that have nothing to do with each other: each is a Spark job of one task."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Listener
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError

from brain_mri.spark.apart import ApartTask
from brain_mri.spark.failures import explained
from brain_mri.spark.processes import ONE_CORE, Ear, Needs, dumps, loads, open_listener
from brain_mri.spark.session import get_session
from brain_mri.spark.slots import Slots

_PAUSE = 2.0
_DIED = re.compile("ExecutorLostFailure|Python worker exited unexpectedly")

Result = TypeVar("Result")


@dataclass(frozen=True)
class EachLauncher:
    """Runs functions in tasks, as many at once as there are slots.

    Attributes:
        needs: What each task gets.

    Example:
        >>> dict(EachLauncher().run([lambda seat: 6 * 7], lambda said: said))  # doctest: +SKIP
        {0: 42}
    """

    needs: Needs = ONE_CORE

    def open_listener(self) -> tuple[Listener, tuple[str, int]]:
        """A socket of this process that tasks reach, and its address for them."""
        return open_listener(get_session().sparkContext.getConf())

    def run(
        self, functions: Sequence[Callable[[Any], Result]], lost: Callable[[str], Result]
    ) -> Iterator[tuple[int, Result]]:
        """Run every function once, and yield the number and the result of each as it ends.

        A function whose process or executor dies is not run again. An error that one raises ends all.

        Args:
            functions: Picklable, by value where executors cannot import them; they get a seat.
            lost: From how its process ended to the result of a function that has none.

        Raises:
            TooFewSlotsError: There is not one slot, also after a while.
            TooLittleMemoryError: A machine has less memory than a task may take.
            SparkJobError: The cluster is gone.
            Exception: What a function raised.
        """
        context = get_session().sparkContext
        slots = Slots(context, 1, self.needs)
        slots.wait()
        group = f"functions {uuid.uuid4()}"
        with Ear(context.getConf()) as ear:

            def work(number: int) -> Result:
                context.setJobGroup(group, f"function {number + 1} of {len(functions)}", True)
                content = dumps(functions[number])
                task = EachTask(content, self.needs, ear.address, ear.key, number, len(functions))
                try:
                    with explained():
                        result, obituary = slots.rows(1).mapPartitions(task).collect()[0]
                except Py4JJavaError as error:
                    signs = [line for line in str(error).splitlines() if _DIED.search(line)]
                    if not signs:
                        raise
                    result, obituary = None, signs[0]
                return lost(obituary) if result is None else loads(result)

            # Local mode does not know how many cores a task takes; a cluster lets jobs wait for their turn.
            with ThreadPoolExecutor(min(slots.at_once() or len(functions), len(functions))) as threads:
                jobs = {threads.submit(work, number): number for number in range(len(functions))}
                waiting = set(jobs)
                try:
                    while waiting:
                        ended, waiting = wait(waiting, _PAUSE, FIRST_COMPLETED)
                        for job in sorted(ended, key=jobs.__getitem__):
                            yield jobs[job], job.result()
                        if ear.failure is not None:
                            raise ear.failure
                        slots.check()  # Spark would wait for ever, in silence
                finally:  # also when somebody breaks it off
                    for job in jobs:
                        job.cancel()
                    while wait(jobs, _PAUSE / 4).not_done:  # one may just have begun
                        context.cancelJobGroup(group)


@dataclass(frozen=True)
class EachTask(ApartTask):
    """A task that does nothing the second time: Spark repeats one whose executor was lost."""

    def __call__(self, rows: Iterator[int]) -> Iterator[tuple[bytes | None, str]]:
        """As that of :class:`ApartTask`."""
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        if context.attemptNumber():
            return iter([(None, "Its task died: the executor was lost, or its Python process.")])
        return super().__call__(rows)
