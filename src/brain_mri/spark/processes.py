"""Workers as processes that Spark's tasks start, and what the driver hears from them.

Each task starts a process of its own for its worker. So libraries that can be set up but once in a process
(as TensorFlow's collectives) are fresh for every job, though Spark keeps its Python workers; and what a
worker prints is at hand when it dies.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

if TYPE_CHECKING:
    from pyspark import TaskContext

logger = logging.getLogger(__name__)

SPOKEN = "@log "  # begins every line that a worker has for people
DIED = 3  # exit status of a worker that wants to be started again
_LAST_LINES = 20
_LOOKS = 0.2  # seconds between looks at the memory of a worker


class WorkerDiedError(RuntimeError):
    """A worker died, every time that all of them were started; the message has its last lines."""


class TooLittleMemoryError(RuntimeError):
    """A machine has less memory left than its workers may take."""


class WorkerEndedError(RuntimeError):
    """The process of a worker ended without a result; raised in its task."""


@dataclass(frozen=True)
class Needs:
    """What every worker gets.

    Attributes:
        cores: Processor cores. On a cluster Spark sets them aside; in local mode it is only told.
        memory_gib: GiB of memory that it may take at most; None for no limit.
        gpus: 1 for a GPU of its own, which Spark's resource scheduling gives its task.
        asked_by: How the names of the parameters begin that decide about it, for messages.
    """

    cores: int = 1
    memory_gib: float | None = None
    gpus: Literal[0, 1] = 0
    asked_by: str = "training.worker"

    def __str__(self) -> str:
        """As in "2 workers of 1 core and 3 GiB"."""
        parts = [f"{self.cores} core{'s' * (self.cores > 1)}"]
        parts += [f"{self.memory_gib:g} GiB"] if self.memory_gib else []
        return " and ".join([*parts, *["a GPU"] * self.gpus])


ONE_CORE = Needs()


@dataclass(frozen=True)
class Seat:
    """What a worker knows of itself and the others.

    Attributes:
        rank: From 0.
        addresses: `host:port` of every worker, by rank; the ports are free for the workers' own use.
        needs: What this worker may use.
    """

    rank: int
    addresses: tuple[str, ...]
    needs: Needs

    @property
    def cores(self) -> int:
        """Cores that this worker may use."""
        return self.needs.cores

    @property
    def gpus(self) -> int:
        """GPUs that this worker has."""
        return self.needs.gpus


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
    needs: Needs
    address: tuple[str, int]
    key: bytes

    def run_worker(self, context: TaskContext, seat: Seat, attempt: int, beside: int = 1) -> bytes:
        """Start the process of a worker and wait for its end; what its function returned, pickled.

        Args:
            context: Of the task.
            seat: Of the worker.
            attempt: A number that is higher in a later attempt.
            beside: Workers that this machine gets, this one included, as far as known.
        """
        gpus = context.resources()["gpu"].addresses if self.needs.gpus else []
        with tempfile.TemporaryDirectory() as folder, Client(self.address, authkey=self.key) as driver:
            try:
                check_memory(self.needs, beside)
            except TooLittleMemoryError as error:
                driver.send(("failed", attempt, seat.rank, dumps(error)))
                raise WorkerEndedError(str(error)) from None
            Path(folder, "seat").write_bytes(dumps(seat))
            Path(folder, "function").write_bytes(self.content)
            # Its standard input is only there to end: the worker ends too, however this task is killed.
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "brain_mri.spark.worker", folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={
                    "TF_CPP_MIN_LOG_LEVEL": "2",
                    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # the driver may be on the same one
                    **os.environ,
                    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi counts, and with it Spark
                    "CUDA_VISIBLE_DEVICES": ",".join(gpus),  # who asked for none gets none
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
            guard = threading.Thread(target=_guard, args=(process, self.needs, last), daemon=True)
            guard.start()
            try:
                for line in process.stdout:
                    text = line.rstrip("\n")
                    last.append(text.removeprefix(SPOKEN))
                    if text.startswith(SPOKEN):
                        driver.send(("line", attempt, seat.rank, text.removeprefix(SPOKEN)))
                status = process.wait()
                guard.join()  # it may have something to say of the end
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


def _guard(process: subprocess.Popen[str], needs: Needs, last: collections.deque[str]) -> None:
    """Kill a worker that takes more memory than it may; limits of the system count what is not used, too."""
    limit = (needs.memory_gib or 0) * 2**30
    with contextlib.suppress(psutil.Error):  # it has just ended
        watched = psutil.Process(process.pid)
        while limit and process.poll() is None:
            taken = watched.memory_info().rss
            if taken > limit:
                process.kill()
                last.append(
                    f"It took {taken / 2**30:.1f} GiB of memory and may take {needs.memory_gib:g}: "
                    f"raise {needs.asked_by}_memory_gib, or take smaller batches."
                )
                return
            time.sleep(_LOOKS)


def _obituary(seat: Seat, status: int, last: Sequence[str]) -> str:
    cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    lines = "".join(f"\n    {line}" for line in last)
    place = f" on {seat.addresses[seat.rank]}" if seat.addresses[seat.rank] else ""
    return f"Worker {seat.rank}{place} {cause}. Its last lines:{lines or ' none.'}"


def check_memory(needs: Needs, workers: int) -> None:
    """See that some workers may take on this machine what they need.

    Raises:
        TooLittleMemoryError: They may not.
    """
    available = available_gib()
    if (needs.memory_gib or 0) * workers > available:
        raise TooLittleMemoryError(
            f"{workers} worker{'s' * (workers > 1)} of {needs} would be on {socket.gethostname()}, where "
            f"{available:.1f} GiB of memory are available. Ask for fewer, or for less "
            f"({needs.asked_by}_memory_gib), or give Spark more machines."
        )


def available_gib(container: Path = Path("/sys/fs/cgroup")) -> float:
    """GiB that processes could take here without swapping, or without outgrowing their container.

    Args:
        container: Folder in which Linux says what a container may take and has taken.
    """
    available = float(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
        limit, taken = (int((container / f"memory.{name}").read_text()) for name in ("max", "current"))
        available = min(available, limit - taken)
    return available / 2**30


def dumps(value: Any) -> bytes:
    """A value as bytes, functions of the main program too."""
    from pyspark import cloudpickle

    return bytes(cloudpickle.dumps(value))  # type: ignore[no-untyped-call]  # ships no types


def loads(content: bytes) -> Any:
    """The value of :func:`dumps`."""
    from pyspark import cloudpickle

    return cloudpickle.loads(content)
