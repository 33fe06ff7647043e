"""The configuration files of a cluster on this machine, for its daemons and its clients alike.

The keys are those of Hadoop's `core-default.xml`, `hdfs-default.xml` and `yarn-default.xml`, of its capacity
scheduler, and of Spark's configuration page. What only one daemon needs is on its command line (see `roles`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from brain_mri.cluster.options import LOOPBACK, ClusterOptions, mebibytes
from brain_mri.cluster.state import LocalCluster
from brain_mri.cluster.stored import namenode_folder

STARTED_BY = "BRAIN_MRI_STARTED_BY"
"""Environment variable of daemons and what they start: the folder of their cluster."""

CONTAINER_VARIABLES = ("JAVA_HOME", "HADOOP_CONF_DIR", "SPARK_LOCAL_IP", STARTED_BY, "PATH", "LANG", "TZ")
"""What YARN's containers inherit from their NodeManager."""

LOG_FILE = "log4j2-daemons.properties"  # not log4j2.properties: Spark's clients would log as the daemons do

_LOG = """\
# Logs of the daemons: 10 MB, then the next file; two old ones are kept. One line per block is no news.
status = error
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:brain_mri.log}
appender.file.filePattern = ${sys:brain_mri.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%ex
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.blocks.name = BlockStateChange
logger.blocks.level = warn
logger.files.name = org.apache.hadoop.hdfs.StateChange
logger.files.level = warn
logger.transfers.name = org.apache.hadoop.hdfs.server.datanode.DataNode.clienttrace
logger.transfers.level = warn
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
"""


def write_configuration(cluster: LocalCluster, pyspark: Path) -> None:
    """Write the files that daemons and clients read into the cluster's folder `conf`.

    Args:
        cluster: The cluster.
        pyspark: The folder of PySpark, whose jars YARN's containers use.
    """
    files = {
        "core-site.xml": _xml(_core(cluster)),
        "hdfs-site.xml": _xml(_hdfs(cluster)),
        "spark-defaults.conf": _properties(_spark(cluster.options, pyspark)),
        LOG_FILE: _LOG,
    }
    if cluster.options.yarn:
        files["yarn-site.xml"] = _xml(_yarn(cluster))
        files["capacity-scheduler.xml"] = _xml(_CAPACITY_SCHEDULER)
    target = cluster.configuration
    target.mkdir(parents=True, exist_ok=True)
    for name in {"yarn-site.xml", "capacity-scheduler.xml"} - files.keys():
        (target / name).unlink(missing_ok=True)  # of an earlier cluster: clients would look for YARN
    for name, text in files.items():
        (target / name).write_text(text, encoding="utf-8")


def _core(cluster: LocalCluster) -> dict[str, object]:
    return {
        "fs.defaultFS": f"hdfs://{cluster.addresses['namenode']}",
        "hadoop.tmp.dir": cluster.folder / "tmp",
        # A NameNode that is started again is back within seconds: Java's clients wait 20 s for it.
        "ipc.client.connect.max.retries": 20,
        "ipc.client.connect.retry.interval": 1000,
        "ipc.client.connect.timeout": 5000,
    }


def _hdfs(cluster: LocalCluster) -> dict[str, object]:
    return {
        "dfs.replication": cluster.options.replication,
        "dfs.namenode.rpc-address": cluster.addresses["namenode"],
        "dfs.namenode.http-address": cluster.addresses["namenode_http"],
        "dfs.namenode.name.dir": namenode_folder(cluster.storage).as_uri(),
        "dfs.namenode.safemode.extension": 0,
        # DataNodes are told apart by their ports, all on one host, whose name nobody needs to resolve.
        "dfs.datanode.hostname": LOOPBACK,
        "dfs.namenode.datanode.registration.ip-hostname-check": False,
        # A DataNode that is gone is passed over after 3 s and counts as dead after 16 s.
        "dfs.heartbeat.interval": 1,
        "dfs.namenode.heartbeat.recheck-interval": 3000,
        # A copy that was ordered of a DataNode which then died is ordered again after seconds, not 5 minutes.
        "dfs.namenode.reconstruction.pending.timeout-sec": 10,
        "dfs.namenode.stale.datanode.interval": 3000,
        "dfs.namenode.avoid.read.stale.datanode": True,
        "dfs.namenode.avoid.write.stale.datanode": True,
        # A write goes on with the DataNodes that are left, where there is none to take the lost one's place.
        "dfs.client.block.write.replace-datanode-on-failure.best-effort": True,
        "dfs.client.retry.max.attempts": 3,
        "dfs.client.failover.max.attempts": 3,
        "dfs.datanode.du.reserved": 256 * 2**20,
    }


def _yarn(cluster: LocalCluster) -> dict[str, object]:
    memory = mebibytes(cluster.options.worker_memory)
    return {
        "yarn.resourcemanager.hostname": LOOPBACK,
        "yarn.resourcemanager.address": cluster.addresses["resourcemanager"],
        "yarn.resourcemanager.scheduler.address": cluster.addresses["resourcemanager_scheduler"],
        "yarn.resourcemanager.resource-tracker.address": cluster.addresses["resourcemanager_tracker"],
        "yarn.resourcemanager.admin.address": cluster.addresses["resourcemanager_admin"],
        "yarn.resourcemanager.webapp.address": cluster.addresses["resourcemanager_http"],
        "yarn.scheduler.minimum-allocation-mb": 128,
        "yarn.scheduler.maximum-allocation-mb": memory,
        "yarn.scheduler.maximum-allocation-vcores": cluster.options.cores_per_worker,
        "yarn.nm.liveness-monitor.expiry-interval-ms": 10000,
        "yarn.nodemanager.resource.memory-mb": memory,
        "yarn.nodemanager.resource.cpu-vcores": cluster.options.cores_per_worker,
        # So that a container that exceeds its memory is ended, not frozen.
        "yarn.nodemanager.resource.memory.enforced": False,
        "yarn.nodemanager.vmem-check-enabled": False,
        "yarn.nodemanager.aux-services": "",
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
        "yarn.nodemanager.log-dirs": cluster.folder / "logs" / "containers",
        "yarn.nodemanager.env-whitelist": ",".join(CONTAINER_VARIABLES),
    }


_CAPACITY_SCHEDULER: dict[str, object] = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": 100,
    "yarn.scheduler.capacity.maximum-am-resource-percent": 0.5,
}


def _spark(options: ClusterOptions, pyspark: Path) -> dict[str, object]:
    settings: dict[str, object] = {
        "spark.driver.host": LOOPBACK,
        "spark.driver.bindAddress": LOOPBACK,
        "spark.master.rest.enabled": False,
        # A barrier stage that finds too few slots says so after seconds, not minutes.
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": 3,
    }
    if options.yarn:
        settings["spark.yarn.jars"] = f"local:{pyspark}/jars/*"
        settings["spark.executor.instances"] = options.workers
    return settings


def _xml(settings: Mapping[str, object]) -> str:
    """Hadoop's configuration file of these settings."""
    lines = [
        f"  <property><name>{name}</name><value>{escape(_word(value))}</value></property>"
        for name, value in settings.items()
    ]
    return "\n".join(['<?xml version="1.0"?>', "<configuration>", *lines, "</configuration>", ""])


def _properties(settings: Mapping[str, object]) -> str:
    return "".join(f"{name} {_word(value)}\n" for name, value in settings.items())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
