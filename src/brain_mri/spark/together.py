"""A launcher for workers that need each other: they start together, as the tasks of one barrier stage.

If one dies, Spark ends the others and starts all again, up to four times.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from brain_mri.spark.failures import explained
from brain_mri.spark.processes import ONE_CORE, Ear, Needs, Seat, WorkerDiedError, WorkerTask, dumps, loads
from brain_mri.spark.session import get_session
from brain_mri.spark.slots import Slots, TooFewSlotsError

_PAUSE = 2.0
_GIVEN_UP = "failed the maximum allowable number of times"  # of a stage, in Spark's words

Result = TypeVar("Result")


@dataclass(frozen=True)
class TogetherLauncher:
    """Runs a function once per worker, all at the same time.

    Attributes:
        workers: How many.
        needs: What each gets.

    Example:
        >>> TogetherLauncher(workers=2).run(lambda seat: seat.rank)  # doctest: +SKIP
        [0, 1]
    """

    workers: int
    needs: Needs = ONE_CORE

    def check(self) -> None:
        """See that all workers can run at the same time, before anything is done for them.

        Raises:
            TooFewSlotsError: They cannot, also after `slots.SLOT_SECONDS`.
        """
        Slots(get_session().sparkContext, self.workers, self.needs).wait()

    def run(self, function: Callable[[Seat], Result]) -> list[Result]:
        """Run the function in every worker and return what each returned, by rank.

        What the workers log appears in the log of this process as it comes. An error in a worker ends them
        all and is raised here. A death starts all of them again; so does an error that other workers may
        have caused: one of TensorFlow's runtime, a `ConnectionError`, a `MemoryError`, or one whose class
        has `start_again` set.

        Args:
            function: Picklable, by value where executors cannot import it.

        Raises:
            TooFewSlotsError: Not all workers can run at the same time, or not any more.
            TooLittleMemoryError: A machine has less memory than its workers may take.
            WorkerDiedError: A worker died in all attempts.
            Exception: What the function raised.
        """
        context = get_session().sparkContext
        slots = Slots(context, self.workers, self.needs)
        slots.wait()
        group = f"workers {uuid.uuid4()}"
        with Ear(context.getConf()) as ear:
            ear.on_failure = lambda: context.cancelJobGroup(group)
            task = _BarrierTask(dumps(function), self.needs, ear.address, ear.key)

            def run() -> list[tuple[int, bytes]]:
                context.setJobGroup(group, f"{self.workers} workers together", True)
                rows = slots.rows().barrier().mapPartitions(task)
                # A barrier stage is only started again if a shuffle follows it.
                return list(rows.partitionBy(1).collect())

            with ThreadPoolExecutor(1) as thread:  # the job group stays its own
                job = thread.submit(run)
                while not wait([job], timeout=_PAUSE).done:
                    # Spark would wait for ever, in silence, to start them again.
                    if slots.are_lost():
                        context.cancelJobGroup(group)
            try:
                return [loads(result) for _, result in sorted(job.result())]
            except Exception as error:
                if ear.failure is not None:
                    raise ear.failure from None
                if slots.are_lost():
                    raise TooFewSlotsError(slots.missing()) from error
                if ear.deaths and _GIVEN_UP in str(error):
                    raise WorkerDiedError(ear.last_words()) from error
                with explained():
                    raise


@dataclass(frozen=True)
class _BarrierTask(WorkerTask):
    """Seats its worker beside the others first."""

    def __call__(self, _rows: Iterator[int]) -> Iterator[tuple[int, bytes]]:
        """The rank of the worker, and what its function returned, pickled."""
        from pyspark import BarrierTaskContext

        context = BarrierTaskContext.get()
        rank = context.partitionId()
        host = context.getTaskInfos()[rank].address.rpartition(":")[0] or "127.0.0.1"
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        own = f"{host}:{port} {context.taskAttemptId()} {socket.gethostname()}"
        gathered = [line.split() for line in context.allGather(own)]
        attempt = max(int(number) for _, number, _ in gathered)  # higher in a later attempt at the stage
        seat = Seat(rank, tuple(address for address, _, _ in gathered), self.needs)
        beside = sum(machine == socket.gethostname() for _, _, machine in gathered)
        return iter([(rank, self.run_worker(context, seat, attempt, beside))])
