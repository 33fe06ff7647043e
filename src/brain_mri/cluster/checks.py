"""What `kedro cluster check` goes through before a run: each step with a tick, or a cross and a remedy.

A step that needs an earlier one is not tried where that failed; none waits without an end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from brain_mri.check import NEEDED_DISK_GIB, Check
from brain_mri.cluster.environment import Environment
from brain_mri.cluster.executors import Answer, answer_here, ask_executors
from brain_mri.cluster.health import HdfsHealth, WorkersHealth, hdfs_health, workers_health
from brain_mri.cluster.pages import CLUSTER_REMEDY, UnreachableError
from brain_mri.cluster.steps import WAIT_SECONDS, Step, run_steps, within
from brain_mri.spark.session import check_master, get_session
from brain_mri.storage.hadoop import (
    DEFAULT_FILESYSTEM,
    FOLDER_VARIABLE,
    check_storage_root,
    default_filesystem,
    read_properties,
)
from brain_mri.storage.reach import check_reachable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_GIB = 2**30


def run_cluster_checks(
    load: Callable[[], Environment], find_page: Callable[[str], str | None]
) -> list[Check]:
    """Go through an environment step by step, from its configuration to what its executors can do.

    Args:
        load: loads the environment; what it raises is the first cross.
        find_page: says where the web page of a Spark master is, if it is not at its usual place.

    Returns:
        The steps in order; those that were not tried, because an earlier one failed, have `ok` None.

    Example:
        >>> checks = run_cluster_checks(lambda: load_environment(project, "cluster"))  # doctest: +SKIP
        >>> print(format_checks(checks))  # doctest: +SKIP
    """
    examination = _Examination(load, find_page)
    try:
        return run_steps(examination.steps())
    finally:
        examination.stop()


class _Examination:
    """The steps, and what earlier ones found for later ones."""

    def __init__(self, load: Callable[[], Environment], find_page: Callable[[str], str | None]) -> None:
        self._load = load
        self._find_page = find_page
        self._environment: Environment
        self._properties: Mapping[str, str] = {}
        self._hdfs: HdfsHealth
        self._workers: WorkersHealth | None = None
        self._session: SparkSession | None = None
        self._answers: list[Answer] = []

    def steps(self) -> list[Step]:
        """All steps in order, with what to do where one fails."""
        logs = "`kedro cluster status` shows the state; DataNodes say in their logs why they are gone."
        return [
            Step("Configuration", self._read_configuration, CLUSTER_REMEDY),
            Step("NameNode", self._ask_namenode, "Start it (here: `kedro cluster up`).", ("Configuration",)),
            Step(
                "Safe mode",
                self._see_safe_mode,
                "It ends by itself once enough DataNodes have reported: start those that are missing. If "
                "someone switched it on, or blocks are lost for good: hdfs dfsadmin -safemode leave",
                ("NameNode",),
            ),
            Step("DataNodes", self._count_datanodes, f"Start the missing ones. {logs}", ("NameNode",)),
            Step(
                "Blocks",
                self._count_blocks,
                f"Start DataNodes that are down: they hold the copies. {logs} "
                "`hdfs fsck / -list-corruptfileblocks` names the files.",
                ("NameNode",),
            ),
            Step("Free space", self._measure_space, "Remove old data, or add DataNodes.", ("NameNode",)),
            Step(
                "Write, read, delete",
                self._write_from_driver,
                "Mend what the message names; `kedro cluster status` shows the state of HDFS.",
                ("NameNode", "Safe mode", "DataNodes"),
            ),
            Step(
                "Spark master",
                self._count_workers,
                "Start it and its workers (here: `kedro cluster up`), or end what holds the cores.",
                ("Configuration",),
            ),
            Step(
                "Spark session",
                self._start_session,
                "See the master's page and logs. Workers must reach the driver: SPARK_LOCAL_IP.",
                ("Write, read, delete", "Spark master"),
            ),
            Step(
                "Executors",
                self._ask_executors,
                "Each takes a free core and spark.executor.memory (by default 1g) of a worker; `kedro "
                "cluster status` says what is free. PYSPARK_PYTHON names the Python that they start.",
                ("Spark session",),
            ),
            Step(
                "Same packages",
                self._compare_packages,
                "Install the driver's Python and packages on every worker, or ship them with the run: "
                "docs/cluster.md.",
                ("Executors",),
            ),
            Step(
                "Executors on storage",
                self._see_executors_write,
                f"Start workers with {FOLDER_VARIABLE}, or set spark.executorEnv.{FOLDER_VARIABLE}. Their "
                "user must be allowed to write below the storage root.",
                ("Executors", "Same packages"),
            ),
            Step(
                "Versions",
                self._compare_versions,
                "Install the PySpark of the cluster's version, or upgrade the cluster.",
                ("Spark session",),
            ),
        ]

    def stop(self) -> None:
        """Give the executors back."""
        if self._session is not None:
            self._session.stop()

    def _read_configuration(self) -> str:
        self._environment = self._load()
        self._properties = read_properties()
        check_storage_root(self._environment.storage)
        return (
            f"results go to {self._environment.storage} on {self._properties.get(DEFAULT_FILESYSTEM)}, "
            f"Spark's master is {self._environment.master}"
        )

    def _ask_namenode(self) -> str:
        self._hdfs = hdfs_health(self._properties)
        return f"Hadoop {self._hdfs.hadoop_version}, page at {self._hdfs.namenode_http}"

    def _see_safe_mode(self) -> str:
        if self._hdfs.safe_mode:
            raise RuntimeError(f"on, nothing can be written: {self._hdfs.safe_mode_reason}")
        return "off"

    def _count_datanodes(self) -> str:
        found = f"{self._hdfs.live_datanodes} live, {self._hdfs.dead_datanodes} dead"
        if self._hdfs.live_datanodes < self._replication:
            raise RuntimeError(
                f"{found}; expected {self._replication} or more for that many copies of a block"
            )
        return found

    def _count_blocks(self) -> str:
        found = f"{self._hdfs.missing_blocks} missing, {self._hdfs.corrupt_blocks} corrupt"
        if self._hdfs.missing_blocks or self._hdfs.corrupt_blocks:
            raise RuntimeError(found)
        return found

    def _measure_space(self) -> str:
        free, needed = self._hdfs.free_bytes, NEEDED_DISK_GIB * self._replication * _GIB
        found = f"{free / _GIB:.1f} GiB"
        if free < needed:
            raise RuntimeError(f"{found}, expected {needed / _GIB:.0f} GiB for {self._replication} copies")
        return found

    def _write_from_driver(self) -> str:
        check_reachable(self._environment.storage)
        return f"works below {self._environment.storage}"

    def _count_workers(self) -> str:
        master = self._environment.master
        check_master(master)
        try:
            self._workers = workers_health(master, self._properties, self._find_page(master))
        except UnreachableError as error:
            return f"{master} answers; its workers are not counted: {error} {error.remedy}"
        if self._workers is None:
            return f"{master} has no workers to count"
        found = (
            f"{master}: {self._workers.live_workers} workers with {self._workers.cores} cores, "
            f"{self._workers.cores - self._workers.used_cores} free"
        )
        if self._workers.cores <= self._workers.used_cores:
            raise RuntimeError(found)
        return found

    def _start_session(self) -> str:
        # A master that refuses does so after a minute, in its own words; a busy machine needs that long, too.
        complaint = f"Spark has not started on {self._environment.master}"
        self._session = within(get_session, complaint, 2 * WAIT_SECONDS)
        return f"Spark {self._session.version} on {self._session.sparkContext.master}"

    def _ask_executors(self) -> str:
        assert self._session is not None
        context, storage = self._session.sparkContext, self._environment.storage
        expected = self._workers.live_workers if self._workers else 1
        try:
            self._answers = within(
                lambda: ask_executors(context, storage, expected), "No executor has answered"
            )
        except TimeoutError:
            context.cancelAllJobs()
            raise
        hosts = sorted({answer.host for answer in self._answers})
        return f"{len(self._answers)} answer, on {', '.join(hosts)}"

    def _compare_packages(self) -> str:
        here = answer_here()
        different = [
            f"{answer.host} has {name} {answer.versions.get(name)}, the driver {version}"
            for answer in self._answers
            for name, version in here.versions.items()
            if answer.versions.get(name) != version
        ]
        if different:
            raise RuntimeError("\n".join(sorted(set(different))))
        return ", ".join(f"{name} {version}" for name, version in here.versions.items())

    def _see_executors_write(self) -> str:
        refusals = sorted({f"{answer.host}: {answer.refusal}" for answer in self._answers if answer.refusal})
        if refusals:
            raise RuntimeError("\n".join(refusals))
        ours = default_filesystem() or ""
        others = sorted(
            {f"{one.host}: {one.filesystem or 'none'}" for one in self._answers if one.filesystem != ours}
        )
        if self._environment.storage.startswith("hdfs:///") and others:
            raise RuntimeError(
                f"the default filesystem is {ours} here, and by their own HADOOP_CONF_DIR on "
                + ", ".join(others)
            )
        return f"write, read and delete below {self._environment.storage}"

    def _compare_versions(self) -> str:
        assert self._session is not None
        assert self._session._jvm is not None
        client = str(self._session._jvm.org.apache.hadoop.util.VersionInfo.getVersion())
        pairs = [("Hadoop", client, self._hdfs.hadoop_version, 1)]
        if self._workers and self._workers.manager == "spark" and self._workers.manager_version:
            pairs.append(("Spark", self._session.version, self._workers.manager_version, 2))
        if self._workers and self._workers.manager == "yarn":
            pairs.append(("YARN", client, self._workers.manager_version, 1))
        found = [f"{name} {ours} here, {theirs} on the cluster" for name, ours, theirs, _ in pairs]
        # Hadoop's protocols are the same within a major version, Spark's within a minor one.
        if any(ours.split(".")[:parts] != theirs.split(".")[:parts] for _, ours, theirs, parts in pairs):
            raise RuntimeError("; ".join(found))
        return "; ".join(found)

    @property
    def _replication(self) -> int:
        return int(self._properties.get("dfs.replication", 3))  # Hadoop's default
