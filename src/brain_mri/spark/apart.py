"""A launcher for workers that do not need each other: each is a Spark job, and started again alone."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Listener
from typing import Any, TypeVar

from brain_mri.spark.failures import explained
from brain_mri.spark.processes import (
    ONE_CORE,
    Ear,
    Needs,
    Seat,
    WorkerDiedError,
    WorkerEndedError,
    WorkerTask,
    dumps,
    loads,
    open_listener,
)
from brain_mri.spark.session import get_session
from brain_mri.spark.slots import Slots

logger = logging.getLogger(__name__)

ATTEMPTS = 4
_PAUSE = 2.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class ApartLauncher:
    """Runs a function once per worker, all at the same time.

    Attributes:
        workers: How many.
        needs: What each gets.

    Example:
        >>> ApartLauncher(workers=2).run(lambda seat: seat.rank)  # doctest: +SKIP
        [0, 1]
    """

    workers: int
    needs: Needs = ONE_CORE

    def open_listener(self) -> tuple[Listener, tuple[str, int]]:
        """A socket of this process that workers reach, and its address for them."""
        return open_listener(get_session().sparkContext.getConf())

    def check(self) -> None:
        """See that all workers can run at the same time, before anything is done for them.

        Raises:
            TooFewSlotsError: They cannot, also after `slots.SLOT_SECONDS`.
        """
        Slots(get_session().sparkContext, self.workers, self.needs).wait()

    def run(self, function: Callable[[Seat], Result]) -> list[Result]:
        """Run the function in every worker and return what each returned, by rank.

        A worker that dies is started again, `ATTEMPTS` times in all, while the others go on. An error that
        the function raises ends all.

        Args:
            function: Picklable, by value where executors cannot import it.

        Raises:
            TooFewSlotsError: Not all workers can run at the same time, or not any more.
            TooLittleMemoryError: A machine has less memory than its workers may take.
            WorkerDiedError: One died in all attempts.
            Exception: What the function raised.
        """
        context = get_session().sparkContext
        slots = Slots(context, self.workers, self.needs)
        slots.wait()
        group = f"workers {uuid.uuid4()}"
        over = threading.Event()
        with Ear(context.getConf()) as ear:

            def fail() -> None:
                over.set()
                context.cancelJobGroup(group)

            ear.on_failure = fail

            def work(rank: int) -> Any:
                task = ApartTask(dumps(function), self.needs, ear.address, ear.key, rank, self.workers)
                context.setJobGroup(group, f"worker {rank} of {self.workers}", True)
                for attempt in range(1, ATTEMPTS + 1):
                    if over.is_set():
                        raise CancelledError
                    with explained():
                        result, obituary = slots.rows(1).mapPartitions(task).collect()[0]
                    if result is not None:
                        return loads(result)
                    if attempt < ATTEMPTS and not over.is_set():
                        logger.warning("Worker %d is started again, alone.", rank)
                raise WorkerDiedError(obituary)

            with ThreadPoolExecutor(self.workers) as threads:  # a job group belongs to a thread
                jobs = [threads.submit(work, rank) for rank in range(self.workers)]
                try:
                    while (ended := wait(jobs, _PAUSE, FIRST_EXCEPTION)).not_done:
                        for job in ended.done:
                            job.result()
                        slots.check()  # Spark would wait for ever, in silence
                    return [job.result() for job in jobs]
                except BaseException:  # also when somebody breaks it off
                    over.set()
                    while wait(jobs, _PAUSE / 4).not_done:  # one may just have begun
                        context.cancelJobGroup(group)
                    if ear.failure is not None:
                        raise ear.failure from None
                    raise


@dataclass(frozen=True)
class ApartTask(WorkerTask):
    """What the task of one worker does: it starts its process, and passes on what it says."""

    rank: int = 0
    workers: int = 1

    def __call__(self, _rows: Iterator[int]) -> Iterator[tuple[bytes | None, str]]:
        """What the function returned, pickled; or None and how it ended: Spark would repeat what raises."""
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        seat = Seat(self.rank, tuple([""] * self.workers), self.needs)
        try:
            return iter([(self.run_worker(context, seat, context.taskAttemptId()), "")])
        except WorkerEndedError as error:
            return iter([(None, str(error))])
