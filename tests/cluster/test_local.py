"""`kedro cluster up`, `down` and `clean`, with real daemons."""

from __future__ import annotations

import fcntl
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brain_mri.cluster import daemons, local
from brain_mri.cluster.readiness import ask
from tests.clusters import REPOSITORY, Cluster, hosts_of

pytestmark = pytest.mark.cluster

SMALL = ("--datanodes", "1", "--replication", "1", "--workers", "1")


def status_of(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_up_ends_when_everything_is_there_and_its_pages_work(cluster: Cluster) -> None:
    print(f"ready after {cluster.seconds} s")  # noqa: T201 - 20 at most, where nothing else runs
    assert cluster.seconds < 90
    assert cluster.namenode("NameNodeInfo")["Safemode"] == ""
    assert cluster.namenode()["NumLiveDataNodes"] == 3
    assert cluster.processes.keys() == {
        *("namenode", "datanode-1", "datanode-2", "datanode-3"),
        *("spark_master", "worker-1", "worker-2"),
    }
    for path in ("/index.html", "/dfshealth.html", "/dfshealth.js", "/explorer.html", "/static/hadoop.css"):
        assert status_of(cluster.addresses["namenode_http"], path) == 200
    assert status_of(cluster.addresses["spark_master_http"], "/") == 200
    assert hosts_of(process for _, process in daemons.processes_of(cluster.folder)) == {"127.0.0.1"}
    assert re.search(r"^drwx.*/user/", cluster.fs("-ls", "/user"), flags=re.MULTILINE)


def test_a_second_up_is_harmless_and_other_options_are_refused(cluster: Cluster) -> None:
    before = cluster.processes
    printed = cluster.up()
    assert "was up already" in printed
    assert f"export HADOOP_CONF_DIR={cluster.folder}/conf" in printed
    assert cluster.processes == before
    refused = cluster.run("up", "--workers", "3", check=False)
    assert refused.returncode == 1
    assert "--workers is 2, not 3" in refused.stderr
    assert "kedro cluster down" in refused.stderr
    assert cluster.processes == before
    warned = cluster.run("up", HADOOP_CONF_DIR="/etc/hadoop", HADOOP_HOME="/opt/hadoop").stdout
    assert "/opt/hadoop, not used" in warned
    assert "Yours is /etc/hadoop, and `kedro run --env=cluster` goes there" in warned


def test_the_exit_status_of_hadoops_shell_is_passed_on(cluster: Cluster) -> None:
    answer = cluster.run("fs", "-ls", "/absent", check=False)
    assert answer.returncode == 1
    assert "No such file or directory" in answer.stderr


def test_data_survives_down_and_a_killed_daemon_is_started_again(
    start_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = start_cluster(*SMALL, "--workers", "2")
    assert ask(cluster.addresses["spark_master_http"], "/json/")["aliveworkers"] == 2
    source = tmp_path / "content.bin"
    source.write_bytes(bytes(range(256)) * 5000)
    cluster.fs("-put", str(source), "/content.bin")
    address = cluster.addresses["datanode_1"]
    before = cluster.processes
    cluster.kill("datanode-1")
    assert "started again: datanode-1." in cluster.up()
    assert cluster.addresses["datanode_1"] == address
    assert cluster.processes["namenode"] == before["namenode"]
    (cluster.folder / "cluster.json").unlink()  # `down` needs no file
    assert "Ended datanode-1, namenode, spark_master, worker-1, worker-2." in cluster.down()
    assert daemons.processes_of(cluster.folder) == []
    cluster.up()
    assert ask(cluster.addresses["spark_master_http"], "/json/")["aliveworkers"] == 2
    cluster.fs("-get", "/content.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
    assert cluster.run("clean", check=False).returncode == 1  # it asks, and nobody says yes
    assert (cluster.folder / "hdfs" / "data-1" / "current").is_dir()
    cluster.run("clean", "--yes")
    assert not cluster.folder.exists()


@pytest.mark.parametrize("command", ["up", "clean"])
def test_a_folder_of_someone_else_is_refused_and_stays_as_it_is(tmp_path: Path, command: str) -> None:
    foreign = tmp_path / "conf" / "cluster.json"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    cluster = Cluster(tmp_path)
    answer = cluster.run(command, *({"up": cluster.words, "clean": ("--yes",)}[command]), check=False)
    assert answer.returncode == 1
    assert f"Error: {cluster.folder} holds conf, and no cluster" in answer.stderr
    assert "BRAIN_MRI_CLUSTER" in answer.stderr
    assert sorted(tmp_path.rglob("*")) == [foreign.parent, foreign]
    assert foreign.read_text() == "mine"


def test_clean_waits_for_another_command_and_removes_what_is_the_cluster_s_alone(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "cluster.json").write_text("{}")
    (tmp_path / local.MARK).touch()
    (tmp_path / "notes.txt").write_text("mine")
    lines: list[str] = []
    clean = threading.Thread(target=local.clean, args=(tmp_path, lines.append))
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clean.start()
        clean.join(1)
        assert clean.is_alive()
        assert "Waiting for another" in lines[0]
        assert (tmp_path / "conf").is_dir()
    clean.join(30)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_daemon_that_cannot_start_ends_up_with_its_log_and_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", *SMALL, "--datanode-memory", "1m")
    try:
        answer = cluster.run("up", *cluster.words, check=False)
        assert answer.returncode == 1
        assert "The datanode-1 ended while it started" in answer.stderr
        assert "heap" in answer.stderr
        assert daemons.processes_of(cluster.folder) == []
        assert not (cluster.folder / "cluster.json").exists()
    finally:
        cluster.discard()


def test_down_finds_what_a_killed_up_had_started(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", *SMALL)
    command = [sys.executable, "-m", "brain_mri", "cluster", "up", *cluster.words]
    up = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=cluster.base_environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while "datanode-1" not in cluster.processes:
            assert up.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        up.send_signal(signal.SIGKILL)
        up.wait()
        assert "datanode-1" in cluster.down()
        assert daemons.processes_of(cluster.folder) == []
    finally:
        up.kill()
        up.wait()
        cluster.discard()


@pytest.mark.slow
def test_with_yarn_nodemanagers_take_the_place_of_sparks_workers(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster(*SMALL, "--workers", "2", "--yarn")
    address = cluster.addresses["resourcemanager_http"]
    assert ask(address, "/ws/v1/cluster/metrics")["clusterMetrics"]["activeNodes"] == 2
    assert cluster.processes.keys() == {
        *("namenode", "datanode-1", "resourcemanager", "nodemanager-1", "nodemanager-2")
    }
    for path in ("/cluster", "/cluster/nodes", "/static/yarn.css"):
        assert status_of(address, path) == 200
    assert cluster.environment["SPARK_MASTER"] == "yarn"
    status = json.loads(cluster.run("status", "--json").stdout)
    assert (status["manager"], status["spark_master"]) == ("yarn", "yarn")
    assert status["manager_http"] == cluster.addresses["resourcemanager_http"]
    assert (status["live_workers"], status["dead_workers"], status["problems"]) == (2, 0, [])
    checked = cluster.run("check").stdout
    assert checked.splitlines()[-1] == "All 13 checks passed."
    assert "✓ Executors             2 answer" in checked
    hosts = hosts_of(process for _, process in daemons.processes_of(cluster.folder))
    assert hosts == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
    cluster.down()
    assert daemons.processes_of(cluster.folder) == []
