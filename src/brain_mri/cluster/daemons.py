"""Processes of the cluster: starting them, finding them again, and ending them and nothing else.

Every daemon carries the cluster's folder on its command line, and in its environment, which executors and
containers inherit. So the system's own table of processes says what runs: no file can be stale, a reused
process id is not mistaken for a daemon, and what a crashed `up` or a killed worker left behind is found too.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from brain_mri.cluster.configuration import LOG_FILE, STARTED_BY
from brain_mri.cluster.connection import ClusterError
from brain_mri.cluster.roles import FORMAT, Daemon

_FOLDER_PROPERTY = "-Dbrain_mri.cluster="
_NAME_PROPERTY = "-Dbrain_mri.daemon="
_COMPUTING = ("worker", "nodemanager")
_PATIENCE = 10  # seconds
_TAIL = 15


class DaemonError(ClusterError):
    """A daemon cannot be started or ended; the message holds what it logged last."""


def java_command(daemon: Daemon, folder: Path, java: Path, classpath: str) -> list[str]:
    """The command line of a daemon.

    Args:
        daemon: What to start.
        folder: The cluster's folder.
        java: The Java home.
        classpath: Where its classes are, first the configuration.
    """
    properties = {"brain_mri.log": _log(folder, daemon.name), **daemon.properties}
    return [
        str(java / "bin" / "java"),
        # Small and quick to start: what these daemons do here is little.
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms32m", f"-Xmx{daemon.memory}"),
        "-Djava.net.preferIPv4Stack=true",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"{_FOLDER_PROPERTY}{folder}",
        f"{_NAME_PROPERTY}{daemon.name}",
        f"-Dlog4j2.configurationFile={folder / 'conf' / LOG_FILE}",
        *(f"-D{name}={value}" for name, value in properties.items()),
        *("-cp", classpath),
        daemon.main,
        *daemon.arguments,
    ]


def start(daemon: Daemon, folder: Path, command: list[str], environment: Mapping[str, str]) -> psutil.Process:
    """Start a daemon that outlives this process and its terminal.

    Its log is `logs/<name>.log`; what the Java runtime itself prints is in `logs/<name>.out`.

    Raises:
        DaemonError: It could not even be started.
    """
    log = _log(folder, daemon.name)
    for needed in (log.parent, folder / "tmp"):
        needed.mkdir(parents=True, exist_ok=True)
    try:
        with log.with_suffix(".out").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - the user's own Java
                command,
                cwd=folder,
                env={**environment, STARTED_BY: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return psutil.Process(process.pid)
    except (OSError, psutil.Error) as error:
        raise DaemonError(f"The {daemon.name} could not be started: {error}") from error


def processes_of(folder: Path) -> list[tuple[str, psutil.Process]]:
    """Every process of a cluster: daemons with their names, and with no name what daemons started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid() and process.environ().get(STARTED_BY) == str(folder):
                found.append((_daemon_name(process, folder), process))
    return found


def running_daemons(folder: Path) -> dict[str, psutil.Process]:
    """The daemons of a cluster that run, by name."""
    return {name: process for name, process in processes_of(folder) if name not in ("", FORMAT)}


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process still runs; one that ended and was not reaped yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(process: psutil.Process, limit: float) -> None:
    """Wait until a process has ended by itself, at most `limit` seconds; then it is ended."""
    deadline = time.monotonic() + limit
    while is_alive(process):
        if time.monotonic() > deadline:
            end([process])
        time.sleep(0.05)


def check_alive(started: Mapping[str, psutil.Process], folder: Path) -> None:
    """Look whether daemons still run.

    Raises:
        DaemonError: One ended; the message has the last lines of its log.
    """
    for name, process in started.items():
        if not is_alive(process):
            raise DaemonError(
                f"The {name} ended while it started. The end of its log:\n{log_tail(folder, name)}"
            )


def log_tail(folder: Path, name: str) -> str:
    """The last lines that a daemon logged and printed."""
    lines = []
    for path in (_log(folder, name), _log(folder, name).with_suffix(".out")):
        with suppress(FileNotFoundError):
            text = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
            lines += [f"{path}:", *(f"  {line}" for line in text)] if text else []
    return "\n".join(lines) or f"{_log(folder, name)}: empty"


def stop_all(folder: Path) -> list[str]:
    """End every process of a cluster: first what computes, then what stores, last the NameNode.

    Returns:
        The names of the daemons that were ended.

    Raises:
        DaemonError: One cannot be ended.
    """
    stopped = sorted(running_daemons(folder))
    stages: list[tuple[float, Callable[[str], bool]]] = [
        (2, lambda name: name.split("-")[0] in ("", *_COMPUTING)),  # NodeManagers do not always heed SIGTERM
        (_PATIENCE, lambda name: name != "namenode"),
        (_PATIENCE, lambda name: True),
    ]
    for patience, stage in stages:
        # Again until there is none: a worker may have started an executor in its last moment.
        while victims := [process for name, process in processes_of(folder) if stage(name)]:
            end(victims, patience)
    return stopped


def end(
    processes: Iterable[psutil.Process],
    patience: float = _PATIENCE,
    signals: Sequence[str] = ("terminate", "kill"),
) -> None:
    """Ask processes to end, and end those that have not after a while.

    `psutil` compares the time of creation before it sends a signal, so a reused id is not hit.

    Args:
        processes: Which.
        patience: Seconds to wait after each signal.
        signals: Methods of `psutil.Process`, in this order.

    Raises:
        DaemonError: One cannot be ended.
    """
    left = list(processes)
    for signal in signals:
        for process in left:
            try:
                getattr(process, signal)()
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied as error:
                raise DaemonError(f"Process {process.pid} cannot be ended: {error}") from error
        deadline = time.monotonic() + patience
        while (left := [process for process in left if is_alive(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
    if left:
        raise DaemonError(f"These processes do not end: {', '.join(str(process.pid) for process in left)}")


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.log"


def _daemon_name(process: psutil.Process, folder: Path) -> str:
    """The name that a daemon of this folder carries on its command line; empty for any other process."""
    command = process.cmdline()
    if f"{_FOLDER_PROPERTY}{folder}" not in command:
        return ""
    names = [word.removeprefix(_NAME_PROPERTY) for word in command if word.startswith(_NAME_PROPERTY)]
    return names[0] if names else ""
