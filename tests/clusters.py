"""Clusters for tests: on ports and in folders of their own, gone afterwards even if the test is killed.

`pytest_plugins = ["tests.clusters"]` makes the fixtures known.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from brain_mri.cluster import daemons
from brain_mri.cluster.connection import FOLDER_VARIABLE, read_state
from brain_mri.cluster.ports import port_option
from brain_mri.cluster.readiness import namenode_bean, what_is_missing
from brain_mri.cluster.state import load_cluster

REPOSITORY = Path(__file__).resolve().parents[1]
ANY_PORT = {
    False: ("namenode", "namenode_http", "spark_master", "spark_master_http"),
    True: ("namenode", "namenode_http", "resourcemanager_http"),
}
_SET_BY_CLUSTERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_CONF_DIR", "SPARK_MASTER", "SPARK_LOCAL_IP")


class Cluster:
    """A cluster that was started as a user starts one.

    Args:
        folder: Its folder; it need not exist.
        options: Of `kedro cluster up`, for example "--yarn".

    Attributes:
        seconds: What its latest start from nothing took.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder.resolve()
        self.seconds = 0
        ports = [word for name in ANY_PORT["--yarn" in options] for word in (port_option(name), "0")]
        self.words = (*options, *ports)

    def run(self, *words: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `kedro cluster <words>` on it."""
        answer = subprocess.run(
            [sys.executable, "-m", "brain_mri", "cluster", *words],
            cwd=REPOSITORY,
            env={**self.base_environment, **variables},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        assert not check or answer.returncode == 0, answer.stdout + answer.stderr
        return answer

    def up(self) -> str:
        """Start it, or what is missing of it; returns what was printed."""
        printed = self.run("up", *self.words).stdout
        ready = re.search(r"Ready after (\d+) s", printed)
        self.seconds = int(ready[1]) if ready else self.seconds
        return printed

    def mend(self) -> None:
        """Start what is missing of it, if anything is."""
        known = load_cluster(self.folder)
        if known is None or what_is_missing(known):
            self.up()

    def down(self) -> str:
        """Stop it; the data stays."""
        return self.run("down").stdout

    def fs(self, *words: str) -> str:
        """What Hadoop's own shell prints, for example of `fs("-ls", "-R", "/")`."""
        return self.run("fs", *words).stdout

    @property
    def base_environment(self) -> dict[str, str]:
        """The environment of a user whose cluster it is, and who set nothing."""
        inherited = {name: value for name, value in os.environ.items() if name not in _SET_BY_CLUSTERS}
        return {**inherited, FOLDER_VARIABLE: str(self.folder)}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process use it: to be added to an environment."""
        return dict(read_state(self.folder)["environment"])

    @property
    def addresses(self) -> dict[str, str]:
        """ "host:port" of every listener, by name: `namenode`, `namenode_http`, `datanode_1_http`, …."""
        return dict(read_state(self.folder)["addresses"])

    @property
    def processes(self) -> dict[str, psutil.Process]:
        """The daemons that run, by name: `namenode`, `datanode-1`, `worker-2`, `nodemanager-1`, …."""
        return daemons.running_daemons(self.folder)

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process, which looks at what lies there, use it and no other one."""
        for name in _SET_BY_CLUSTERS:
            patch.delenv(name, raising=False)
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def kill(self, name: str) -> None:
        """End a daemon with SIGKILL, and wait until it is gone."""
        daemons.end([self.processes[name]], signals=("kill",))

    def namenode(self, bean: str = "FSNamesystemState") -> dict[str, Any]:
        """What the NameNode says of itself."""
        return namenode_bean(self.addresses["namenode_http"], bean)

    def discard(self) -> None:
        """End everything of it and remove its folder."""
        daemons.stop_all(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_cluster(folder: Path, *options: str) -> Iterator[Cluster]:
    """Start a cluster with some options of `kedro cluster up`, and discard it in the end."""
    cluster = Cluster(folder, *options)
    watch(cluster.folder)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.discard()


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start clusters that the test may break: `start_cluster("--datanodes", "1", …)`."""
    clusters: list[Cluster] = []

    def start(*options: str) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster-{len(clusters)}", *options)
        clusters.append(cluster)
        watch(cluster.folder)
        cluster.up()
        return cluster

    yield start
    for cluster in clusters:
        cluster.discard()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests: three DataNodes, two Spark workers. A test must leave it whole."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as shared:
        yield shared


@pytest.fixture
def in_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The shared cluster, with this process's environment set to use it."""
    cluster.use(monkeypatch)
    return cluster


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for a state of a cluster, or of anything else."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def hosts_of(processes: Iterable[psutil.Process]) -> set[str]:
    """The hosts on which processes listen."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            links = process.net_connections()
            found |= {link.laddr.ip for link in links if link.status == psutil.CONN_LISTEN}
    return {host.removeprefix("::ffff:") for host in found}


def watch(folder: Path, pid: int | None = None) -> None:
    """Start a process that discards the cluster of a folder as soon as this one (or another) has vanished."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(pid or os.getpid()), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _discard_after(pid: int, folder: Path) -> None:
    try:
        watched = psutil.Process(pid)
        while folder.is_dir() and daemons.is_alive(watched):
            time.sleep(1)
    except psutil.NoSuchProcess:
        pass
    Cluster(folder).discard()


if __name__ == "__main__":
    _discard_after(int(sys.argv[1]), Path(sys.argv[2]))
