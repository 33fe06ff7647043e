"""Measuring a way of preprocessing from outside: in a fresh process of its own, with all that it starts."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from brain_mri.cluster.connection import cluster_folder, read_state

PROJECT = Path(__file__).parents[1]
MARK = "@pass "
"""Begins every line by which a way says that a pass begins or ends; other output is passed over."""

_PAUSE = 0.5


@dataclass(frozen=True)
class Job:
    """What a way is given.

    Attributes:
        files: Local folder of single image files, `<class>/<name>`.
        root: URL of a folder with the packed scans (`scans`) or single files (`files`); ways write there.
        images: How many each pass has to prepare; 0 if that is for the way to say.
        cores: How many it may use.
        passes: How often; the first is the cold one.
        environment: "local" or "cluster", whose Spark settings are used.
    """

    files: str
    root: str
    images: int
    cores: int
    passes: int
    environment: str = "local"


@dataclass(frozen=True)
class Measured:
    """What a way took.

    Attributes:
        way: Its name.
        images: Of a pass.
        cores: That it had.
        cold_seconds: From the start of its process to the end of its first pass.
        warm_seconds: Median of the later passes.
        cpu_seconds: Processor time of a later pass (median), of all its processes and of the daemons of a
            cluster on this machine.
        peak_bytes: Most memory at a time, of all its processes and executors; what they share counts once.
        counts: What the way itself counted in its last pass.
    """

    way: str
    images: int
    cores: int
    cold_seconds: float
    warm_seconds: float
    cpu_seconds: float
    peak_bytes: int
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def cold_rate(self) -> float:
        """Images a second, start included."""
        return self.images / self.cold_seconds

    @property
    def rate(self) -> float:
        """Images a second when everything has started."""
        return self.images / self.warm_seconds

    @property
    def start_seconds(self) -> float:
        """What the first pass took longer than a later one."""
        return max(self.cold_seconds - self.warm_seconds, 0.0)


class Watch:
    """Processor time and memory of a process with all its descendants, and of a cluster's daemons.

    A process that ends between two samples counts with what it had used at the first of them.

    Args:
        pid: Of the process.
        daemons: Process ids of a cluster's daemons. Their children are executors, whose memory counts; that
            of the daemons does not.

    Attributes:
        peak_bytes: Largest sum of memory in a sample.
        root_bytes: Largest memory of the process itself.
        worker_bytes: Largest memory of one worker of a distributed training; 0 where there is none.
    """

    def __init__(self, pid: int, daemons: Sequence[int] = ()) -> None:
        self._root = psutil.Process(pid)
        self._daemons = [psutil.Process(daemon) for daemon in daemons]
        self._seconds: dict[psutil.Process, float] = {}
        self._lock = threading.Lock()
        self.peak_bytes = self.root_bytes = self.worker_bytes = 0

    def sample(self) -> float:
        """Look at all processes; the seconds of processor time that they have used so far."""
        with self._lock:
            memory = 0
            for process in self._processes():
                try:
                    times = process.cpu_times()
                    self._seconds[process] = times.user + times.system
                    if process not in self._daemons:
                        full = process.memory_full_info()
                        own = getattr(full, "pss", full.uss)  # macOS does not know the former
                        memory += own
                        if process == self._root:
                            self.root_bytes = max(self.root_bytes, own)
                        elif "brain_mri.spark.worker" in process.cmdline():
                            self.worker_bytes = max(self.worker_bytes, own)
                except psutil.Error:
                    continue  # it has just ended
            self.peak_bytes = max(self.peak_bytes, memory)
            return sum(self._seconds.values())

    def _processes(self) -> Iterator[psutil.Process]:
        for root in (self._root, *self._daemons):
            try:
                yield from (root, *root.children(recursive=True))
            except psutil.Error:
                continue

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample twice a second; at the end nothing that the process started is left."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(_PAUSE):
                self.sample()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            ours = [one for one in {self._root, *self._seconds} if not self._is_of_daemons(one)]
            _, left = psutil.wait_procs(ours, timeout=10)
            for process in left:
                process.kill()

    def _is_of_daemons(self, process: psutil.Process) -> bool:
        try:
            return any(one in self._daemons for one in (process, *process.parents()))
        except psutil.Error:
            return False


def cluster_daemons() -> list[int]:
    """Process ids of the daemons of the cluster that was started here, if it is the one in use."""
    state = read_state(cluster_folder(PROJECT))
    used = state.get("environment", {}).get("HADOOP_CONF_DIR") == os.environ.get("HADOOP_CONF_DIR")
    return [process["pid"] for process in state["processes"]] if state and used else []


def measure(way: str, job: Job, daemons: Sequence[int] = ()) -> Measured:
    """Run a way of `benchmarks.ways` in a fresh process.

    Raises:
        RuntimeError: It failed, or prepared another number of images than it was given.
    """
    print(f"  {way}, {job.environment}; cores: {job.cores} …", flush=True)
    command = [sys.executable, "-m", "benchmarks.ways", way, json.dumps(asdict(job))]
    moments = []
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
        watch = Watch(process.pid, daemons)
        assert process.stdout is not None
        with watch.running():
            for line in process.stdout:
                if line.startswith(MARK):
                    counts = json.loads(line.removeprefix(MARK))
                    moments.append((time.perf_counter() - started, watch.sample(), counts))
            code = process.wait()
        if code or len(moments) != 2 * job.passes:
            errors.seek(0)
            raise RuntimeError(f"{way} ended with {code}:\n{errors.read()[-3000:]}")
    begins, ends = moments[::2], moments[1::2]
    images = ends[-1][2]["images"]
    if job.images and images != job.images:
        raise RuntimeError(f"{way} prepared {images} of {job.images} images.")
    later = list(zip(begins, ends, strict=True))[1:]
    return Measured(
        way,
        images,
        job.cores,
        cold_seconds=ends[0][0],
        warm_seconds=statistics.median(end[0] - begin[0] for begin, end in later),
        cpu_seconds=statistics.median(end[1] - begin[1] for begin, end in later),
        peak_bytes=watch.peak_bytes,
        counts=ends[-1][2],
    )


def _environment() -> dict[str, str]:
    """This process's, with the Python that runs here for executors, and less talk."""
    return {"PYSPARK_PYTHON": sys.executable, "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
