"""What a cluster's own pages say is reported in full; what does not answer is reported with its address."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from brain_mri.cluster.health import cluster_status, format_status, hdfs_health, workers_health
from brain_mri.cluster.pages import UnreachableError, namenode_pages
from tests.clusters import Cluster

# As real daemons (Hadoop 3.5.0, Spark 4.3.0) answered, cut to what is read.
NAMENODE: dict[str, dict[str, Any]] = {
    # The metrics of a NameNode that has just started: they are some seconds old.
    "FSNamesystem": {"tag.HAState": "active", "CapacityTotal": 0, "NumLiveDataNodes": 0},
    "FSNamesystemState": {
        "CapacityTotal": 811659522048,
        "CapacityUsed": 57908780,
        "CapacityRemaining": 230551252992,
        "UnderReplicatedBlocks": 3,
        "NumLiveDataNodes": 3,
        "NumDeadDataNodes": 1,
    },
    "ReplicatedBlocksState": {"MissingReplicatedBlocks": 1, "CorruptReplicatedBlocks": 2},
    "NameNodeInfo": {"SoftwareVersion": "3.5.0", "Safemode": ""},
}
MASTER = {
    "url": "spark://127.0.0.1:17077",
    "workers": [{"state": "ALIVE"}, {"state": "ALIVE"}, {"state": "DEAD"}],
    "aliveworkers": 2,
    "cores": 2,
    "coresused": 1,
    "memory": 4096,
    "memoryused": 1024,
    "status": "ALIVE",
}
METRICS = {
    "clusterMetrics": {
        "activeNodes": 2,
        "lostNodes": 1,
        "unhealthyNodes": 1,
        "totalVirtualCores": 4,
        "allocatedVirtualCores": 1,
        "totalMB": 6144,
        "allocatedMB": 512,
    }
}
GIB = 2**30


def jmx(beans: dict[str, dict[str, Any]], **changed: Any) -> dict[str, str]:
    """The pages of a NameNode by address, with attributes of the first bean changed."""
    beans = {**beans, "FSNamesystem": {**beans["FSNamesystem"], **changed}}
    return {
        f"/jmx?qry=Hadoop:service=NameNode,name={name}": json.dumps({"beans": [bean]})
        for name, bean in beans.items()
    }


def master_pages(**changed: Any) -> dict[str, str]:
    return {"/json/": json.dumps({**MASTER, **changed}), "/": '<span class="version me-3">4.3.0</span>'}


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serve documents on a free port: `serve({"/json/": "…"})` returns `host:port`."""
    servers = []

    def start(pages: dict[str, str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, "").encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def hdfs_at(*pages: str) -> dict[str, str]:
    """The configuration of HDFS with one NameNode, or several of which one is active."""
    if len(pages) == 1:
        return {"fs.defaultFS": "hdfs://127.0.0.1:8020", "dfs.namenode.http-address": pages[0]}
    names = [f"nn{number}" for number in range(len(pages))]
    addresses = zip((f"dfs.namenode.http-address.service.{name}" for name in names), pages, strict=True)
    return {"fs.defaultFS": "hdfs://service", "dfs.ha.namenodes.service": ", ".join(names), **dict(addresses)}


def test_hdfs_is_read_from_its_namenode(serve: Any) -> None:
    page = serve(jmx(NAMENODE))
    health = hdfs_health(hdfs_at(page))
    assert (health.namenode_http, health.hadoop_version, health.safe_mode) == (page, "3.5.0", False)
    assert (health.live_datanodes, health.dead_datanodes) == (3, 1)
    assert (health.capacity_bytes, health.used_bytes, health.free_bytes) == (
        811659522048, 57908780, 230551252992,
    )  # fmt: skip
    assert (health.missing_blocks, health.corrupt_blocks, health.under_replicated_blocks) == (1, 2, 3)


def test_of_several_namenodes_the_active_one_answers(serve: Any) -> None:
    standby = serve(jmx(NAMENODE, **{"tag.HAState": "standby"}))
    active = serve(jmx(NAMENODE))
    assert hdfs_health(hdfs_at("127.0.0.1:1", standby, active)).namenode_http == active
    with pytest.raises(UnreachableError, match=r"Connection refused; .*is standby") as refusal:
        hdfs_health(hdfs_at("127.0.0.1:1", standby))
    assert refusal.value.address == f"127.0.0.1:1, {standby}"


@pytest.mark.parametrize(
    ("properties", "pages"),
    [
        ({}, ("http", ["namenode:9870"])),
        ({"dfs.namenode.http-address": "0.0.0.0:50070"}, ("http", ["namenode:50070"])),
        ({"dfs.http.policy": "HTTPS_ONLY"}, ("https", ["namenode:9871"])),
        ({"dfs.namenode.http-address": "web:80"}, ("http", ["web:80"])),
    ],
)
def test_the_namenode_s_page_is_where_the_configuration_says(
    properties: dict[str, str], pages: tuple[str, list[str]]
) -> None:
    assert namenode_pages({"fs.defaultFS": "hdfs://namenode:8020", **properties}) == pages


def test_a_standalone_master_counts_its_workers(serve: Any) -> None:
    page = serve(master_pages())
    health = workers_health("spark://127.0.0.1:17077", {}, page)
    assert health is not None
    assert (health.manager, health.manager_http, health.manager_version) == ("spark", page, "4.3.0")
    assert (health.live_workers, health.dead_workers) == (2, 1)
    assert (health.cores, health.used_cores) == (2, 1)
    assert (health.memory_bytes, health.used_memory_bytes) == (4 * GIB, GIB)


def test_the_page_of_another_master_is_not_taken_for_ours(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(serve(master_pages()).rpartition(":")[2])
    monkeypatch.setattr("brain_mri.cluster.health.SPARK_PAGE_PORT", port)
    assert workers_health("spark://127.0.0.1:17077", {}) is not None
    with pytest.raises(UnreachableError, match=r"is the page of spark://127\.0\.0\.1:17077"):
        workers_health("spark://127.0.0.1:7077", {})


def test_yarn_counts_its_nodes(serve: Any) -> None:
    info = {"clusterInfo": {"haState": "ACTIVE", "hadoopVersion": "3.5.0"}}
    pages = {"/ws/v1/cluster/info": info, "/ws/v1/cluster/metrics": METRICS}
    page = serve({path: json.dumps(answer) for path, answer in pages.items()})
    health = workers_health("yarn", {"yarn.resourcemanager.webapp.address": page})
    assert health is not None
    assert (health.manager, health.manager_http, health.manager_version) == ("yarn", page, "3.5.0")
    assert (health.live_workers, health.dead_workers, health.cores, health.used_cores) == (2, 2, 4, 1)
    assert (health.memory_bytes, health.used_memory_bytes) == (6 * GIB, GIB // 2)


def test_a_local_master_has_no_workers_to_ask() -> None:
    assert workers_health("local[*]", {}) is None


def test_what_does_not_answer_is_a_problem_with_address_and_remedy(serve: Any) -> None:
    status = cluster_status(hdfs_at("127.0.0.1:1"), "spark://127.0.0.1:17077", serve(master_pages()))
    (problem,) = status["problems"]
    assert (problem["part"], problem["address"]) == ("HDFS", "127.0.0.1:1")
    assert "Connection refused" in problem["found"]
    assert "kedro cluster up" in problem["remedy"]
    assert "namenode_http" not in status
    assert status["live_workers"] == 2
    text = format_status(status)
    assert "✗ HDFS         No NameNode answers (127.0.0.1:1: Connection refused).\n" in text
    assert "Workers        2 live, 1 dead" in text


def test_a_page_that_hangs_is_given_up_within_seconds() -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(UnreachableError, match="timed out"):
            hdfs_health(hdfs_at(f"127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - start < 10


def test_people_read_sizes_in_gib(serve: Any) -> None:
    status = cluster_status(hdfs_at(serve(jmx(NAMENODE))), "local[*]")
    assert format_status(status).splitlines()[2:] == [
        "Safe mode      off",
        "DataNodes      3 live, 1 dead",
        "Capacity       755.9 GiB: 0.1 used, 214.7 free",
        "Blocks         1 missing, 2 corrupt, 3 under-replicated",
        "Spark master   local[*]",
    ]


@pytest.mark.cluster
def test_the_status_of_a_live_cluster(cluster: Cluster) -> None:
    answer = cluster.run("status", "--json")
    status = json.loads(answer.stdout)
    assert status["namenode_http"] == cluster.addresses["namenode_http"]
    assert status["manager_http"] == cluster.addresses["spark_master_http"]
    assert (status["safe_mode"], status["live_datanodes"], status["dead_datanodes"]) == (False, 3, 0)
    assert (status["live_workers"], status["missing_blocks"], status["problems"]) == (2, 0, [])
    assert status["capacity_bytes"] == cluster.namenode()["CapacityTotal"]
    assert "DataNodes      3 live, 0 dead" in cluster.run("status").stdout


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_datanode_and_a_killed_namenode_are_reported(start_cluster: Any, tmp_path: Path) -> None:
    cluster = start_cluster("--workers", "1")
    (tmp_path / "file").write_bytes(bytes(1000))
    cluster.fs("-put", str(tmp_path / "file"), "/file")
    cluster.kill("datanode-1")
    deadline = time.monotonic() + 120
    while cluster.namenode()["NumDeadDataNodes"] == 0 and time.monotonic() < deadline:
        time.sleep(1)
    status = json.loads(cluster.run("status", "--json").stdout)
    assert (status["live_datanodes"], status["dead_datanodes"]) == (2, 1)

    cluster.kill("namenode")
    answer = cluster.run("status", check=False)
    assert answer.returncode == 1
    assert f"No NameNode answers ({cluster.addresses['namenode_http']}" in answer.stdout
    assert "→ Start HDFS" in answer.stdout
    assert "Workers        1 live, 0 dead" in answer.stdout
