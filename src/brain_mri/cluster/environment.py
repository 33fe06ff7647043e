"""What a configuration environment says of storage and Spark, and where the Spark master's page is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brain_mri.cluster.connection import cluster_folder, read_state


@dataclass(frozen=True)
class Environment:
    """What the commands that look at a cluster need of an environment.

    Attributes:
        storage: the storage root: a folder or a URL.
        master: Spark's master, for example "spark://127.0.0.1:7077".
        event_log: where Spark keeps what its applications did.
    """

    storage: str
    master: str
    event_log: str


def load_environment(project: Path, name: str) -> Environment:
    """Load the configuration of an environment as a run does: hooks find the cluster and set up Spark.

    Args:
        project: The project's folder.
        name: Of the environment, for example "cluster".
    """
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project)
    session = KedroSession.create(project, env=name)
    with session:
        configuration = session.load_context().config_loader
    spark = configuration["spark"]

    def absolute(location: str) -> str:
        return location if "://" in location else str(project / location)

    storage = str(configuration["globals"]["storage"])
    return Environment(
        storage=absolute(storage),
        master=str(spark.get("spark.master", "local[*]")),
        event_log=absolute(str(spark.get("spark.eventLog.dir", f"{storage}/spark-events"))),
    )


def find_spark_page(project: Path, master: str) -> str | None:
    """`host:port` of the page of a Spark master that was started here; None for another master."""
    addresses: Mapping[str, str] = read_state(cluster_folder(project)).get("addresses", {})
    return (
        addresses.get("spark_master_http") if master == f"spark://{addresses.get('spark_master')}" else None
    )
