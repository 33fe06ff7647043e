"""How a cluster is, as its own web pages tell: any NameNode, Spark master or YARN ResourceManager.

What the NameNode publishes is described in Hadoop's "Metrics" document (FSNamesystem) and its Java interface
NameNodeMXBean, what the ResourceManager does in "ResourceManager REST API's"; Spark's master has `/json/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brain_mri.cluster.pages import UnreachableError, fetch_text, first_answer, namenode_pages
from brain_mri.storage.hadoop import DEFAULT_FILESYSTEM, resourcemanager_addresses

SPARK_PAGE_PORT = 8080

_MIB = 2**20
_GIB = 2**30
_VERSION = re.compile(r'class="version[^"]*">([^<]+)<')  # Spark's master has its version on its page alone


@dataclass(frozen=True)
class HdfsHealth:
    """What the active NameNode knows of its filesystem.

    Attributes:
        namenode_http: `host:port` of its web page.
        hadoop_version: for example "3.5.0".
        safe_mode: whether nothing can be written.
        safe_mode_reason: what it waits for, in Hadoop's words; empty when off.
        live_datanodes: DataNodes that report.
        dead_datanodes: DataNodes that stopped reporting.
        capacity_bytes: disk space of all DataNodes, of which `used_bytes` hold blocks and `free_bytes` can.
        missing_blocks: blocks of which no whole copy is left.
        corrupt_blocks: blocks of which some copy is damaged.
        under_replicated_blocks: blocks with fewer copies than wanted; mended by the NameNode.
    """

    namenode_http: str
    hadoop_version: str
    safe_mode: bool
    safe_mode_reason: str
    live_datanodes: int
    dead_datanodes: int
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    missing_blocks: int
    corrupt_blocks: int
    under_replicated_blocks: int


@dataclass(frozen=True)
class WorkersHealth:
    """What the Spark master or the YARN ResourceManager knows of its workers.

    Attributes:
        manager: "spark" or "yarn".
        manager_http: `host:port` of its web page.
        manager_version: of Spark or Hadoop; empty where it does not say.
        live_workers: workers (YARN: nodes) that report.
        dead_workers: workers that stopped reporting or are unfit.
        cores: of all live workers, of which `used_cores` are taken.
        memory_bytes: that live workers offer to executors, of which `used_memory_bytes` are taken.
    """

    manager: str
    manager_http: str
    manager_version: str
    live_workers: int
    dead_workers: int
    cores: int
    used_cores: int
    memory_bytes: int
    used_memory_bytes: int


def cluster_status(properties: Mapping[str, str], master: str, page: str | None = None) -> dict[str, Any]:
    """Ask HDFS and the workers of an environment how they are.

    Args:
        properties: The Hadoop configuration, as `storage.hadoop.read_properties` returns it.
        master: Spark's master, for example "spark://127.0.0.1:7077" or "yarn".
        page: `host:port` of the Spark master's web page; default its host with port 8080.

    Returns:
        Flat, for JSON: `default_filesystem`, `spark_master`, the attributes of `HdfsHealth` and of
        `WorkersHealth`, and `problems`: a list of `part`, `address`, `found`, `remedy` for each part that did
        not answer, whose attributes are then absent. On a local master or Kubernetes there are no workers to
        ask.

    Example:
        >>> cluster_status(read_properties(), "spark://127.0.0.1:7077")["namenode_http"]  # doctest: +SKIP
        '127.0.0.1:9870'
    """
    status: dict[str, Any] = {
        "default_filesystem": properties.get(DEFAULT_FILESYSTEM, ""),
        "spark_master": master,
    }
    problems = []
    parts: dict[str, Callable[[], HdfsHealth | WorkersHealth | None]] = {
        "HDFS": lambda: hdfs_health(properties),
        "Workers": lambda: workers_health(master, properties, page),
    }
    for part, ask in parts.items():
        try:
            health = ask()
        except UnreachableError as error:
            problems.append(
                {"part": part, "address": error.address, "found": str(error), "remedy": error.remedy}
            )
        else:
            status |= asdict(health) if health else {}
    return {**status, "problems": problems}


def hdfs_health(properties: Mapping[str, str]) -> HdfsHealth:
    """Ask the NameNode; of several the active one.

    Raises:
        UnreachableError: None is configured, none answers, or none is active.
    """
    scheme, addresses = namenode_pages(properties)
    address, beans = first_answer(
        "NameNode",
        addresses,
        lambda address: _namenode_beans(f"{scheme}://{address}"),
        "Start HDFS (here: `kedro cluster up`), or mend dfs.namenode.http-address in hdfs-site.xml.",
    )
    reason = str(beans.get("Safemode") or "")
    return HdfsHealth(
        namenode_http=address,
        hadoop_version=str(beans["SoftwareVersion"]),
        safe_mode=bool(reason),
        safe_mode_reason=reason,
        live_datanodes=int(beans["NumLiveDataNodes"]),
        dead_datanodes=int(beans["NumDeadDataNodes"]),
        capacity_bytes=int(beans["CapacityTotal"]),
        used_bytes=int(beans["CapacityUsed"]),
        free_bytes=int(beans["CapacityRemaining"]),
        missing_blocks=int(beans["MissingReplicatedBlocks"]),
        corrupt_blocks=int(beans["CorruptReplicatedBlocks"]),
        under_replicated_blocks=int(beans["UnderReplicatedBlocks"]),
    )


def workers_health(
    master: str, properties: Mapping[str, str], page: str | None = None
) -> WorkersHealth | None:
    """Ask the Spark master or YARN; None where Spark runs in the driver or on Kubernetes.

    Raises:
        UnreachableError: It does not answer.
    """
    if master.startswith("spark://"):
        return _standalone_health(master, page)
    if master == "yarn":
        return _yarn_health(properties)
    return None


def format_status(status: Mapping[str, Any]) -> str:
    """Return what `cluster_status` found as lines for a terminal."""
    lines = []
    if "namenode_http" in status:
        free, capacity = _gib(status["free_bytes"]), _gib(status["capacity_bytes"])
        lines += [
            ("HDFS", f"{status['default_filesystem']}, Hadoop {status['hadoop_version']}"),
            ("NameNode page", f"http://{status['namenode_http']}"),
            ("Safe mode", status["safe_mode_reason"] or "off"),
            ("DataNodes", f"{status['live_datanodes']} live, {status['dead_datanodes']} dead"),
            ("Capacity", f"{capacity} GiB: {_gib(status['used_bytes'])} used, {free} free"),
            ("Blocks", f"{status['missing_blocks']} missing, {status['corrupt_blocks']} corrupt, "
                       f"{status['under_replicated_blocks']} under-replicated"),
        ]  # fmt: skip
    lines.append(("Spark master", str(status["spark_master"])))
    if "manager_http" in status:
        name = {"spark": "Spark", "yarn": "YARN"}[status["manager"]]
        memory, used = _gib(status["memory_bytes"]), _gib(status["used_memory_bytes"])
        lines += [
            (f"{name} page", f"http://{status['manager_http']}"),
            ("Workers", f"{status['live_workers']} live, {status['dead_workers']} dead"),
            ("Cores", f"{status['cores']}: {status['used_cores']} used"),
            ("Memory", f"{memory} GiB: {used} used"),
        ]
    text = [f"{name:<15}{value}" for name, value in lines]
    for problem in status["problems"]:
        text += [f"✗ {problem['part']:<13}{problem['found']}", f"{'':<15}→ {problem['remedy']}"]
    return "\n".join(text)


def _namenode_beans(page: str) -> dict[str, Any]:
    """The attributes of the beans that count, in one mapping; a standby NameNode is no answer.

    `FSNamesystem`, which alone tells a standby one, is up to half a minute old; what stands in the others too
    is taken from there.
    """
    values: dict[str, Any] = {}
    for name in ("FSNamesystem", "FSNamesystemState", "ReplicatedBlocksState", "NameNodeInfo"):
        for bean in json.loads(fetch_text(f"{page}/jmx?qry=Hadoop:service=NameNode,name={name}"))["beans"]:
            values |= bean
    if values.get("tag.HAState", "active") != "active":
        raise ValueError(f"is {values['tag.HAState']}")
    return values


def _standalone_health(master: str, page: str | None) -> WorkersHealth:
    addresses = [address.rpartition(":") for address in master.removeprefix("spark://").split(",")]
    ports = [port for _, _, port in addresses]

    def ask(address: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(fetch_text(f"http://{address}/json/"))
        if answer["status"] != "ALIVE":
            raise ValueError(f"is {answer['status'].lower()}")
        if page is None and answer["url"].rpartition(":")[2] not in ports:  # hosts may be spelled otherwise
            raise ValueError(f"is the page of {answer['url']}")
        version = _VERSION.search(fetch_text(f"http://{address}/"))
        return {**answer, "version": version[1] if version else ""}

    address, state = first_answer(
        f"page of the Spark master {master}",
        [page] if page else [f"{host}:{SPARK_PAGE_PORT}" for host, _, _ in addresses],
        ask,
        "Start it (here: `kedro cluster up`), or name its web page: --spark-page HOST:PORT.",
    )
    return WorkersHealth(
        manager="spark",
        manager_http=address,
        manager_version=state["version"],
        live_workers=state["aliveworkers"],
        dead_workers=len(state["workers"]) - state["aliveworkers"],
        cores=state["cores"],
        used_cores=state["coresused"],
        memory_bytes=state["memory"] * _MIB,
        used_memory_bytes=state["memoryused"] * _MIB,
    )


def _yarn_health(properties: Mapping[str, str]) -> WorkersHealth:
    secure = properties.get("yarn.http.policy") == "HTTPS_ONLY"
    scheme, service = ("https", "webapp.https.address") if secure else ("http", "webapp.address")

    def ask(address: str) -> dict[str, Any]:
        root = f"{scheme}://{address}/ws/v1/cluster"
        information = json.loads(fetch_text(f"{root}/info"))["clusterInfo"]
        if information.get("haState", "ACTIVE") != "ACTIVE":
            raise ValueError(f"is {information['haState'].lower()}")
        metrics = json.loads(fetch_text(f"{root}/metrics"))["clusterMetrics"]
        return {**metrics, "version": information["hadoopVersion"]}

    address, state = first_answer(
        "YARN ResourceManager",
        resourcemanager_addresses(properties, service),
        ask,
        "Start YARN (here: `kedro cluster up --yarn`), or mend yarn.resourcemanager.webapp.address.",
    )
    return WorkersHealth(
        manager="yarn",
        manager_http=address,
        manager_version=state["version"],
        live_workers=state["activeNodes"],
        dead_workers=state["lostNodes"] + state["unhealthyNodes"],
        cores=state["totalVirtualCores"],
        used_cores=state["allocatedVirtualCores"],
        memory_bytes=state["totalMB"] * _MIB,
        used_memory_bytes=state["allocatedMB"] * _MIB,
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f}"
