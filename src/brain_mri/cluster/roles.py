"""Which daemons a cluster consists of, and how each is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from brain_mri.cluster.options import LOOPBACK
from brain_mri.cluster.state import LocalCluster

FORMAT = "format"
"""The role of a process that ends by itself."""

_NUMBERED = ("datanode", "worker", "nodemanager")
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_RESOURCEMANAGER = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
_NODEMANAGER = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"


@dataclass(frozen=True)
class Daemon:
    """One process of the cluster.

    Attributes:
        role: What it is, for example "datanode".
        number: Which of its role, from 1.
        main: The Java class.
        memory: Its heap, as Java writes sizes.
        arguments: What follows the class on the command line.
        properties: System properties.
    """

    role: str
    number: int
    main: str
    memory: str
    arguments: tuple[str, ...] = ()
    properties: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For logs and people, for example "datanode-2"; the only one of its role has no number."""
        return f"{self.role}-{self.number}" if self.role in _NUMBERED else self.role


def daemons_of(cluster: LocalCluster) -> list[Daemon]:
    """The daemons of a cluster, in the order in which they are started."""
    options = cluster.options
    workers = range(1, options.workers + 1)
    storing = [
        Daemon("namenode", 1, _NAMENODE, options.namenode_memory),
        *(_datanode(cluster, number) for number in range(1, options.datanodes + 1)),
    ]
    if options.yarn:
        master = Daemon("resourcemanager", 1, _RESOURCEMANAGER, "256m", properties=_yarn_logs(cluster))
        return [*storing, master, *(_nodemanager(cluster, number) for number in workers)]
    return [*storing, _spark_master(cluster), *(_worker(cluster, number) for number in workers)]


def format_daemon(folder: Path) -> Daemon:
    """The process that makes an empty filesystem in a folder, and ends."""
    arguments = (*_options({"dfs.namenode.name.dir": folder.as_uri()}), "-format", "-nonInteractive")
    return Daemon(FORMAT, 1, _NAMENODE, "128m", arguments)


def daemon_environment(
    cluster: LocalCluster, java: Path, pyspark: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment that the daemons get, and from them the executors and containers that they start.

    Args:
        cluster: The cluster.
        java: The Java home.
        pyspark: The folder of PySpark.
        environ: The environment that they would inherit.
    """
    conf = str(cluster.configuration)
    return {
        **environ,
        "JAVA_HOME": str(java),
        "HADOOP_CONF_DIR": conf,
        "YARN_CONF_DIR": conf,
        "SPARK_CONF_DIR": conf,
        "SPARK_HOME": str(pyspark),
        # Spark's launcher scripts set it too; a worker cannot start an executor without.
        "SPARK_SCALA_VERSION": _scala_version(pyspark),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_LOCAL_DIRS": str(cluster.folder / "tmp"),
    }


def _scala_version(pyspark: Path) -> str:
    """Scala's version, as the names of Spark's jars have it: 2.13 for `spark-core_2.13-4.3.0.jar`."""
    jar = next((pyspark / "jars").glob("spark-core_*.jar"))
    return jar.name.removeprefix("spark-core_").partition("-")[0]


def _options(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Settings as Hadoop's daemons read them from their command line."""
    return tuple(word for name, value in settings.items() for word in ("-D", f"{name}={value}"))


def _datanode(cluster: LocalCluster, number: int) -> Daemon:
    settings = {
        "dfs.datanode.data.dir": (cluster.storage / f"data-{number}").as_uri(),
        "dfs.datanode.address": cluster.addresses[f"datanode_{number}"],
        "dfs.datanode.http.address": cluster.addresses[f"datanode_{number}_http"],
        "dfs.datanode.ipc.address": cluster.addresses[f"datanode_{number}_ipc"],
    }
    return Daemon("datanode", number, _DATANODE, cluster.options.datanode_memory, _options(settings))


def _nodemanager(cluster: LocalCluster, number: int) -> Daemon:
    settings = {
        "yarn.nodemanager.hostname": cluster.addresses[f"nodemanager_{number}"].split(":")[0],
        "yarn.nodemanager.address": cluster.addresses[f"nodemanager_{number}"],
        "yarn.nodemanager.webapp.address": cluster.addresses[f"nodemanager_{number}_http"],
        "yarn.nodemanager.localizer.address": cluster.addresses[f"nodemanager_{number}_localizer"],
        "yarn.nodemanager.local-dirs": cluster.folder / "yarn" / f"local-{number}",
    }
    return Daemon("nodemanager", number, _NODEMANAGER, "192m", _options(settings), _yarn_logs(cluster))


def _yarn_logs(cluster: LocalCluster) -> dict[str, object]:
    return dict.fromkeys(("yarn.log.dir", "hadoop.log.dir"), cluster.folder / "logs")


def _spark_master(cluster: LocalCluster) -> Daemon:
    return Daemon("spark_master", 1, _MASTER, "256m", _spark_arguments(cluster, "spark_master"))


def _worker(cluster: LocalCluster, number: int) -> Daemon:
    arguments = (
        *_spark_arguments(cluster, f"worker_{number}"),
        *("--cores", str(cluster.options.cores_per_worker), "--memory", cluster.options.worker_memory),
        *("--work-dir", str(cluster.folder / "work" / f"worker-{number}")),
        f"spark://{cluster.addresses['spark_master']}",
    )
    # What finished applications left in the work folder goes after a week.
    return Daemon("worker", number, _WORKER, "256m", arguments, {"spark.worker.cleanup.enabled": "true"})


def _spark_arguments(cluster: LocalCluster, name: str) -> tuple[str, ...]:
    host, port = cluster.addresses[name].split(":")
    page = cluster.addresses[f"{name}_http"].split(":")[1]
    return ("--host", host, "--port", port, "--webui-port", page)
