"""Spark's history server shows earlier runs, on the loopback address, and ends with the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from brain_mri.cluster.connection import ClusterError
from brain_mri.cluster.history import serve_history
from brain_mri.cluster.pages import fetch_text

APPLICATION = "app-20261121035238-0000"
EVENTS = [
    {"Event": "SparkListenerLogStart", "Spark Version": "4.3.0"},
    {
        "Event": "SparkListenerApplicationStart",
        "App Name": "brain_mri",
        "App ID": APPLICATION,
        "Timestamp": 1795233158261,
        "User": "ada",
    },
    {"Event": "SparkListenerApplicationEnd", "Timestamp": 1795233160000},
]


@pytest.fixture
def event_log(tmp_path: Path) -> Path:
    """The event log of one application that ended."""
    folder = tmp_path / "spark-events"
    folder.mkdir()
    # Without blanks, as Spark writes it: the server looks for lines that begin so.
    lines = [json.dumps(event, separators=(",", ":")) for event in EVENTS]
    (folder / APPLICATION).write_text("\n".join(lines) + "\n")
    return folder


def test_where_no_application_ran_yet_there_is_nothing_to_show(tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        nothing = pytest.raises(
            ClusterError, match=r"There is no event log in .* yet.*kedro run --env=cluster"
        )
        with nothing, serve_history(str(folder), 18080):
            pytest.fail("there is nothing to serve")


def test_a_filesystem_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    refusal = pytest.raises(ClusterError, match=r"127\.0\.0\.1:1.*kedro cluster status")
    with refusal, serve_history("hdfs://127.0.0.1:1/spark-events", 18080):
        pytest.fail("nothing listens there")


@pytest.mark.spark
def test_an_application_is_shown_beside_a_taken_port_and_the_server_ends_with_the_block(
    event_log: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serve_history(str(event_log), port) as (server, address):
            assert address.startswith("http://127.0.0.1:")
            assert address != f"http://127.0.0.1:{port}"
            assert _applications(address) == [APPLICATION]
            listening = [entry.laddr.ip for entry in psutil.Process(server.pid).net_connections("tcp")]
            assert listening
            assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert server.poll() is not None


@pytest.mark.spark
@pytest.mark.slow
def test_the_command_takes_its_server_along_when_it_is_ended(event_log: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from brain_mri.cluster.history import serve_history\n"
        f"with serve_history({str(event_log)!r}, 18080) as (server, address):\n"
        "    print(server.pid, flush=True)\n"
        "    server.wait()\n"
    )
    command = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    server = psutil.Process(int(command.stdout.readline()))
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait(60) == 128 + signal.SIGTERM
    assert not server.is_running()


def _applications(address: str) -> list[Any]:
    """The applications that are shown; the server reads their logs after it has started to answer."""
    deadline = time.monotonic() + 60
    while True:
        found = [entry["id"] for entry in json.loads(fetch_text(f"{address}/api/v1/applications"))]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)
