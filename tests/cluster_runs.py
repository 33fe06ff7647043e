"""Whole runs on a cluster, as a user starts them: processes of their own, in a project without local data."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brain_mri.storage.files import open_filesystem, read_file

REPOSITORY = Path(__file__).resolve().parents[1]
PROMISED = 30
"""Seconds in which a run says that it cannot use its cluster, from the first line that it logs."""
SMALL = "preprocessing.image_size=64,training.epochs=2"


class Command(subprocess.Popen[str]):
    """A running command; what it prints goes to a file, since a pipe that nobody reads would stop it.

    Args:
        words: The command line.
        folder: Where it runs.
        environment: Its variables.
    """

    started: ClassVar[list[Command]] = []

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115 - it lives as long
        super().__init__(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(self)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return os.pread(self._log.fileno(), 2**24, 0).decode(errors="replace")


class Project:
    """The project in a folder of its own, where `data/` is absent; `start` runs a command of it on a cluster.

    Args:
        folder: An empty folder.
        environment: What makes a process use the cluster (`HADOOP_CONF_DIR`, `SPARK_MASTER`, …).
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            **environment,
            "PYSPARK_PYTHON": sys.executable,
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        shutil.copytree(REPOSITORY / "conf", folder / "conf")
        for name in ("pyproject.toml", ".telemetry"):
            shutil.copy(REPOSITORY / name, folder)
        (folder / "src").mkdir()  # Kedro asks for it; the package itself is the installed one

    def start(self, *words: str, root: str = "", **variables: str) -> Command:
        """Start `kedro <words>`; the storage root is `root`, by default the one that the project has."""
        named = {"BRAIN_MRI_HDFS_STORAGE": root} if root else {}
        return Command(
            [sys.executable, "-m", "kedro", *words],
            self.folder,
            {**self.environment, **named, **variables},
        )

    def run(self, *words: str, root: str = "", parameters: str = SMALL, **variables: str) -> Command:
        """Start `kedro run --env=cluster <words>`."""
        return self.start("run", "--env=cluster", f"--params={parameters}", *words, root=root, **variables)


def finish(command: Command, status: int = 0, timeout: float = 400) -> str:
    """Wait for the end of a command, assert its exit status, return its output."""
    try:
        command.wait(timeout)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"not ended after {timeout} s:\n{command.output}") from None
    finally:
        end(command)
    assert command.returncode == status, command.output
    return command.output


def end(command: Command) -> None:
    """Kill a command with everything that it started, if it still runs."""
    if command.poll() is None:
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()


def end_all() -> None:
    """Kill all commands that still run: those of a test that failed."""
    while Command.started:
        end(Command.started.pop())


def refused(run: Command) -> str:
    """The sentence with which a run ends that cannot use its cluster, which must not take long."""
    wait_until(lambda: run.output, run, "it logs something")
    began = time.monotonic()
    said = sentence(finish(run, status=1, timeout=90))
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s: {said}")  # noqa: T201 - a figure for people
    assert seconds < PROMISED, said
    return said


def wait_until(condition: Callable[[], object], command: Command, what: str, timeout: float = 240) -> None:
    """Wait for a condition while a command runs.

    It is an error if the command ends first.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert command.poll() is None, f"ended before {what}:\n{command.output}"
        assert time.monotonic() < deadline, f"waited in vain for {what}:\n{command.output}"
        time.sleep(0.02)


def names_below(url: str) -> list[str]:
    """Names of everything directly in a folder on HDFS, hidden names included; empty where there is none."""
    filesystem, path = open_filesystem(url)
    try:
        return [str(name).rpartition("/")[2] for name in filesystem.ls(path, detail=False)]
    except FileNotFoundError:
        return []


def read(root: str, name: str) -> bytes:
    """A file below a storage root."""
    filesystem, path = open_filesystem(root)
    return read_file(filesystem, f"{path}/{name}")


def events(root: str, timeout: float = 60) -> list[dict[str, Any]]:
    """What Spark's event logs below a storage root say, as soon as all applications there have ended.

    Spark closes the log of a run some moments after its Python process has ended.
    """
    filesystem, path = open_filesystem(f"{root}/spark-events")
    deadline = time.monotonic() + timeout
    while any(str(name).endswith(".inprogress") for name in filesystem.find(path)):
        assert time.monotonic() < deadline, f"an application has not ended: {filesystem.find(path)}"
        time.sleep(0.2)
    found = []
    for name in sorted(map(str, filesystem.find(path))):
        if name.rpartition("/")[2].startswith("events_"):
            packed = pa.BufferReader(read_file(filesystem, name))
            lines = pa.input_stream(packed, compression="zstd").read().splitlines()
            found += [json.loads(line) for line in lines]
    return found


def results(root: str, parts: Iterable[str] = ("ingestion", "preprocessing", "reporting")) -> dict[str, str]:
    """What a run made, in a form that two runs can be compared by: digests by name.

    Tables count by content and order of rows, model inputs by content in the order of `scan_id`; metrics
    without what tells of time.
    """
    filesystem, path = open_filesystem(root)
    found: dict[str, bytes] = {}
    if "ingestion" in parts:
        for name in ("manifest.parquet", "quarantine.parquet"):
            found[name] = read_file(filesystem, f"{path}/02_intermediate/{name}")
        found["scans"] = _rows(f"{root}/02_intermediate/scans.parquet")
    if "preprocessing" in parts:
        for split in ("train", "validation", "test"):
            found[split] = _rows(f"{root}/05_model_input/model_inputs_{split}.parquet")
    if "reporting" in parts:
        metrics = json.loads(read_file(filesystem, f"{path}/08_reporting/metrics.json"))
        timeless = {name: value for name, value in metrics.items() if not name.endswith("_per_second")}
        found["metrics"] = json.dumps(timeless, sort_keys=True).encode()
        found["predictions"] = read_file(filesystem, f"{path}/07_model_output/predictions.parquet")
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def _rows(url: str) -> bytes:
    """The rows of the parts that the mark of a folder names, sorted by scan id, in Arrow's stream format."""
    filesystem, path = open_filesystem(url)
    mark = read_file(filesystem, f"{path}/_SUCCESS").decode()
    tables = []
    for name in sorted(str(name) for name in filesystem.ls(path, detail=False)):
        part = name.rpartition("/")[2]
        if part.startswith("part-") and part in mark:
            with filesystem.open(name, "rb") as stream:
                tables.append(pq.read_table(stream, pre_buffer=False))
    table = pa.concat_tables(tables).combine_chunks()
    table = table.take(pc.sort_indices(table, sort_keys=[("scan_id", "ascending")])).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def sentence(output: str) -> str:
    """What a run that failed says to people at its end, in one line; there must be no stack above it."""
    assert "Traceback" not in output, output
    said = re.search(r"(?:^|\]|\n)Error: (.*)", output, re.DOTALL)  # it may follow Spark's progress bar
    assert said, output
    return " ".join(said[1].split())
