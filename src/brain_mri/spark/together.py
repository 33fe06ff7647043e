"""A launcher for workers that need each other: they start together, as the tasks of one barrier stage.

Each task starts a process of its own for its worker. So libraries that can be set up but once in a process
(as TensorFlow's collectives) are fresh for every job, though Spark keeps its Python workers; and what a
worker prints is at hand when it dies. If one dies, Spark ends the others and starts all again, up to four
times.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, TypeVar

from brain_mri.spark.failures import explained
from brain_mri.spark.session import get_session

logger = logging.getLogger(__name__)

SLOT_SECONDS = 30.0
"""How long executors may take to appear before there are too few."""

_PAUSE = 2.0
_GIVEN_UP = "failed the maximum allowable number of times"  # of a stage, in Spark's words
SPOKEN = "@log "  # begins every line that a worker has for people
_LAST_LINES = 20
DIED = 3  # exit status of a worker that wants to be started again, with all others

Result = TypeVar("Result")


class TooFewSlotsError(RuntimeError):
    """There are fewer task slots than workers that have to run at the same time."""


class WorkerDiedError(RuntimeError):
    """A worker died, every time that all of them were started; the message has its last lines."""


class WorkerEndedError(RuntimeError):
    """The process of a worker ended without a result; raised in its task."""


@dataclass(frozen=True)
class Seat:
    """What a worker knows of itself and the others.

    Attributes:
        rank: From 0.
        addresses: `host:port` of every worker, by rank; the ports are free for the workers' own use.
        cores: That this worker may use.
    """

    rank: int
    addresses: tuple[str, ...]
    cores: int


@dataclass(frozen=True)
class TogetherLauncher:
    """Runs a function once per worker, all at the same time.

    Attributes:
        workers: How many.
        cores: Of each. On a cluster Spark sets them aside; in local mode a worker has the cores it is told.

    Example:
        >>> TogetherLauncher(workers=2).run(lambda seat: seat.rank)  # doctest: +SKIP
        [0, 1]
    """

    workers: int
    cores: int = 1

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
            WorkerDiedError: A worker died in all attempts.
            Exception: What the function raised.
        """
        context = get_session().sparkContext
        slots = Slots(context, self.workers, self.cores)
        slots.wait()
        group = f"workers {uuid.uuid4()}"
        with Ear(context.getConf()) as ear:
            ear.on_failure = lambda: context.cancelJobGroup(group)
            task = _BarrierTask(dumps(function), self.cores, ear.address, ear.key)

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


class Slots:
    """Places for tasks that run at the same time, each with the cores of a worker."""

    def __init__(self, context: Any, workers: int, cores: int) -> None:
        self._context, self._workers, self._cores = context, workers, cores
        self._scheduler = context._jsc.sc()
        self._is_local = str(context.master).startswith("local")
        self._profile: Any = None
        self._lacking_since: float | None = None
        if cores > 1 and not self._is_local:  # a slot of local mode is a core
            from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

            self._profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(cores)).build

    def rows(self, count: int | None = None) -> Any:
        """So many empty partitions, one a worker if not told otherwise, on such slots."""
        count = count or self._workers
        rows = self._context.parallelize(range(count), count)
        return rows.withResources(self._profile) if self._profile else rows

    def wait(self) -> None:
        """Wait until there are enough: executors may be on their way.

        Raises:
            TooFewSlotsError: There are not, also after `SLOT_SECONDS`.
        """
        conf = self._context.getConf()
        if conf.get("spark.dynamicAllocation.enabled", "false") == "true":
            raise TooFewSlotsError(
                "Workers that start together need executors that are there before: Spark refuses them with "
                "spark.dynamicAllocation.enabled=true. Set it to false in conf/<environment>/spark.yml."
            )
        while self._found() < self._workers:
            self.check()
            time.sleep(_PAUSE / 4)

    def check(self) -> None:
        """See that not too few have been there for too long.

        Raises:
            TooFewSlotsError: They have.
        """
        if self.are_lost():
            raise TooFewSlotsError(self.missing())

    def are_lost(self) -> bool:
        """Whether there have been too few for `SLOT_SECONDS`, in local mode whether there are too few."""
        if self._found() >= self._workers:
            self._lacking_since = None
            return False
        now = time.monotonic()
        self._lacking_since = self._lacking_since or now
        return self._is_local or now - self._lacking_since > SLOT_SECONDS

    def missing(self) -> str:
        """What is there, what is needed and what may be done."""
        each = f"{self._cores} core{'s' * (self._cores > 1)}"
        return (
            f"{self._workers} workers of {each} have to run at the same time, but {self._context.master} has "
            f"room for {self._found()}. Ask for fewer (training.num_workers, training.worker_cores), or give "
            "Spark more: "
            + (
                "a machine with more cores."
                if self._is_local
                else "more workers or executors, or more cores for each executor (spark.executor.cores)."
            )
        )

    def _found(self) -> int:
        from py4j.protocol import Py4JJavaError

        manager = self._scheduler.resourceProfileManager()
        if self._profile is None:
            found = int(self._scheduler.maxNumConcurrentTasks(manager.defaultResourceProfile()))
            return found // self._cores
        profile = self._profile._java_resource_profile
        try:
            manager.addResourceProfile(profile)  # does nothing the second time
            return int(self._scheduler.maxNumConcurrentTasks(profile))
        except Py4JJavaError as error:  # no executor has as many cores
            logger.debug("Spark refuses tasks of %d cores: %s", self._cores, error)
            return 0


def open_listener(conf: Any) -> tuple[Listener, tuple[str, int]]:
    """A socket of the driver that workers reach where they reach Spark's driver, and its address."""
    host = str(conf.get("spark.driver.host", "127.0.0.1"))
    listener = Listener((str(conf.get("spark.driver.bindAddress", host)), 0), backlog=64)
    return listener, (host, int(listener.address[1]))


class Ear:
    """What the driver hears from the workers, by a socket of its own."""

    def __init__(self, conf: Any) -> None:
        self.key = secrets.token_bytes(32)
        self._listener, self.address = open_listener(conf)
        self.failure: BaseException | None = None
        self.deaths: dict[int, str] = {}  # by attempt, the first of each: the others died of it
        self.on_failure: Callable[[], None] = lambda: None
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="workers", daemon=True)

    def __enter__(self) -> Ear:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # closing alone does not wake the thread that accepts
            socket.create_connection(self._listener.address, 5).close()
        self._thread.join(5)
        self._listener.close()

    def last_words(self) -> str:
        """Which worker died first in the last attempt, and what it printed."""
        return self.deaths[max(self.deaths)]

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except OSError as error:
                logger.debug("Nobody came in: %s", error)
                continue
            threading.Thread(target=self._hear, args=(connection,), name="worker", daemon=True).start()

    def _hear(self, connection: Connection[Any, Any]) -> None:
        with contextlib.suppress(EOFError, OSError, AuthenticationError), connection:
            deliver_challenge(connection, self.key)  # in this thread: a silent stranger holds up nobody
            answer_challenge(connection, self.key)
            while True:
                kind, attempt, rank, what = connection.recv()
                if kind == "line":
                    logger.info("%s", what if rank == 0 else f"Worker {rank}: {what}")
                elif kind == "died":
                    if attempt not in self.deaths:
                        logger.warning("%s", what.splitlines()[0])
                    self.deaths.setdefault(attempt, what)
                elif self.failure is None:
                    self.failure = loads(what)
                    self.on_failure()


@dataclass(frozen=True)
class WorkerTask:
    """What the task of a worker does: it starts its process and passes on what that says."""

    content: bytes
    cores: int
    address: tuple[str, int]
    key: bytes

    def run_worker(self, seat: Seat, attempt: int) -> bytes:
        """Start the process of a worker and wait for its end; what its function returned, pickled."""
        with tempfile.TemporaryDirectory() as folder, Client(self.address, authkey=self.key) as driver:
            Path(folder, "seat").write_bytes(dumps(seat))
            Path(folder, "function").write_bytes(self.content)
            # Its standard input is only there to end: the worker ends too, however this task is killed.
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "brain_mri.spark.worker", folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
            try:
                for line in process.stdout:
                    text = line.rstrip("\n")
                    last.append(text.removeprefix(SPOKEN))
                    if text.startswith(SPOKEN):
                        driver.send(("line", attempt, seat.rank, text.removeprefix(SPOKEN)))
                status = process.wait()
            finally:
                process.kill()
            if status == 0:
                return Path(folder, "result").read_bytes()
            if status == 1 and Path(folder, "failure").exists():
                driver.send(("failed", attempt, seat.rank, Path(folder, "failure").read_bytes()))
                raise WorkerEndedError("The driver has the reason and ends the job.")
            message = _obituary(seat, status, last)
            driver.send(("died", attempt, seat.rank, message))
            raise WorkerEndedError(message)


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
        gathered = [line.split() for line in context.allGather(f"{host}:{port} {context.taskAttemptId()}")]
        attempt = max(int(number) for _, number in gathered)  # higher in a later attempt at the stage
        result = self.run_worker(Seat(rank, tuple(address for address, _ in gathered), self.cores), attempt)
        return iter([(rank, result)])


def _obituary(seat: Seat, status: int, last: Sequence[str]) -> str:
    cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    lines = "".join(f"\n    {line}" for line in last)
    place = f" on {seat.addresses[seat.rank]}" if seat.addresses[seat.rank] else ""
    return f"Worker {seat.rank}{place} {cause}. Its last lines:{lines or ' none.'}"


def dumps(value: Any) -> bytes:
    """A value as bytes, functions of the main program too."""
    from pyspark import cloudpickle

    return bytes(cloudpickle.dumps(value))  # type: ignore[no-untyped-call]  # ships no types


def loads(content: bytes) -> Any:
    """The value of :func:`dumps`."""
    from pyspark import cloudpickle

    return cloudpickle.loads(content)
