"""Ending what was started, and nothing else; with real processes that are quicker to start than daemons."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from brain_mri.cluster import daemons, local
from brain_mri.cluster.configuration import STARTED_BY
from brain_mri.cluster.options import ClusterOptions
from brain_mri.cluster.ports import choose_addresses
from brain_mri.cluster.roles import Daemon
from brain_mri.cluster.state import LocalCluster
from tests.clusters import wait_for, watch

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"

Start = Callable[..., psutil.Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python process; `name` makes it look like a daemon of the cluster in `folder`."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str, folder: Path | None = None, name: str = "", marked: bool = True) -> psutil.Process:
        words = [f"-Dbrain_mri.cluster={folder}", f"-Dbrain_mri.daemon={name}"] if name else []
        mark = {STARTED_BY: str(folder)} if folder and marked else {}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], env={**os.environ, **mark}, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return psutil.Process(process.pid)

    yield begin
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_daemons_and_what_they_started_are_ended_and_nobody_else(start: Start, tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "ours-too"
    worker = start(PARENT, ours, "worker-1")
    namenode = start(SLEEP, ours, "namenode")
    neighbour = start(SLEEP, other, "namenode")
    reader = start(SLEEP, ours, "datanode-1", marked=False)  # say, a `grep` for the daemon
    wait_for(lambda: len(daemons.processes_of(ours)) == 3, "the worker's child")
    executor = worker.children()[0]
    worker.kill()
    worker.wait()  # its executor is an orphan now
    assert daemons.running_daemons(ours).keys() == {"namenode"}
    assert daemons.stop_all(ours) == ["namenode"]
    assert not daemons.is_alive(executor)
    assert not daemons.is_alive(namenode)
    assert daemons.is_alive(neighbour)
    assert daemons.is_alive(reader)


def test_a_process_that_got_the_number_of_a_daemon_is_left_alone(start: Start, tmp_path: Path) -> None:
    stranger = start(SLEEP)
    options = ClusterOptions(datanodes=1, replication=1, workers=1)
    cluster = LocalCluster(tmp_path.resolve(), options, choose_addresses(options))
    cluster.save({"namenode": stranger})  # as a crash of the machine leaves it
    lines: list[str] = []
    local.down(tmp_path, lines.append)
    assert daemons.is_alive(stranger)
    assert lines == [f"No cluster is up in {tmp_path.resolve()}."]
    assert not (tmp_path / "cluster.json").exists()


def test_who_does_not_heed_is_ended_all_the_same(start: Start, tmp_path: Path) -> None:
    deaf = start(DEAF, tmp_path, "nodemanager-1")
    begin = time.monotonic()
    daemons.end([deaf], patience=0.3)
    assert 0.3 <= time.monotonic() - begin < 5
    assert not daemons.is_alive(deaf)


def test_a_daemon_that_ends_while_it_starts_shows_the_end_of_its_log(tmp_path: Path) -> None:
    daemon = Daemon("namenode", 1, "Main", "32m")
    command = [sys.executable, "-c", "print('first'); raise SystemExit('no such folder')"]
    process = daemons.start(daemon, tmp_path, command, os.environ)
    daemons.wait_for_end(process, 20)
    with pytest.raises(daemons.DaemonError, match=r"(?s)The namenode ended.*namenode\.out:.*no such folder"):
        daemons.check_alive({"namenode": process}, tmp_path)
    with pytest.raises(daemons.DaemonError, match=r"The datanode-1 could not be started: .*absent"):
        daemons.start(Daemon("datanode", 1, "Main", "32m"), tmp_path, ["/absent"], os.environ)


def test_the_cluster_of_a_killed_test_is_discarded(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    test = start(SLEEP)
    daemon = start(SLEEP, folder, "namenode")
    watch(folder, test.pid)
    test.kill()
    wait_for(lambda: not folder.exists() and not daemons.is_alive(daemon), "its end")
