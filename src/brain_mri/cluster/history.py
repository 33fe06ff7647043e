"""Spark's own history server on the event logs of earlier runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brain_mri.cluster.connection import ClusterError
from brain_mri.cluster.pages import fetch_text
from brain_mri.spark.java import use_java
from brain_mri.storage.files import open_filesystem
from brain_mri.storage.retry import no_repeats

START_SECONDS = 120

_HOST = "127.0.0.1"
_LAST_LINES = 15


@contextmanager
def serve_history(event_log: str, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start Spark's history server on this machine; it ends with the block, also on Ctrl-C and SIGTERM.

    Args:
        event_log: Folder of event logs: a local path or a URL.
        port: Where to listen, on the loopback address; another port where it is taken.

    Yields:
        The process, and the address of its page, which answers.

    Raises:
        ClusterError: There is no event log yet, or the server does not start.

    Example:
        >>> with serve_history("hdfs:///user/ada/brain_mri/spark-events", 18080) as (server, address):
        ...     server.wait()
    """
    _expect_logs(event_log)
    address = f"http://{_HOST}:{_free_port(port)}"
    previous = signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="brain-mri-history-") as folder:
        log = Path(folder) / "server.log"
        server = _start(event_log, address, log)
        try:
            _wait_until_it_answers(server, address, log)
            yield server, address
        except KeyboardInterrupt:
            pass  # this is how people end it
        finally:
            server.terminate()
            server.wait()
            signal.signal(signal.SIGTERM, previous)


def _expect_logs(event_log: str) -> None:
    """See that there is something to show.

    Raises:
        ClusterError: The folder is absent, empty or out of reach.
    """
    try:
        with no_repeats():  # who asks to look at something wants to know at once
            filesystem, path = open_filesystem(event_log)
            entries = filesystem.ls(path, detail=False) if filesystem.isdir(path) else []
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"{event_log} cannot be read: {error}. `kedro cluster status` says how HDFS is."
        ) from error
    if not entries:
        raise ClusterError(
            f"There is no event log in {event_log} yet. A run with `spark.eventLog.enabled: true` in the "
            "environment's spark.yml writes one: kedro run --env=cluster"
        )


def _free_port(port: int) -> int:
    """The port if nothing listens there, else any that is free."""
    for candidate in (port, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((_HOST, candidate))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise ClusterError(f"No port is free on {_HOST}.")


def _start(event_log: str, address: str, log: Path) -> subprocess.Popen[bytes]:
    import pyspark

    use_java()
    home = Path(pyspark.__file__).parent
    if "://" not in event_log:
        event_log = Path(event_log).absolute().as_uri()
    properties = log.with_name("history.conf")
    properties.write_text(
        f"spark.history.fs.logDirectory {event_log}\n"
        f"spark.history.ui.port {address.rpartition(':')[2]}\n"
        "spark.history.fs.update.interval 5s\n",
        encoding="utf-8",
    )
    command = [
        str(home / "bin" / "spark-class"),
        "org.apache.spark.deploy.history.HistoryServer",
        "--properties-file",
        str(properties),
    ]
    # Spark's pages listen where SPARK_LOCAL_IP says, by default on every address.
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": _HOST}
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - Spark's own launcher
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            fetch_text(f"{address}/api/v1/version")
        except OSError:
            time.sleep(0.2)
        else:
            return
    last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
    raise ClusterError(f"Spark's history server does not answer at {address}. It said last:\n{last}")


def _leave(*_: Any) -> None:
    """Turn SIGTERM into an exception, so that the server is ended first."""
    sys.exit(128 + signal.SIGTERM)
