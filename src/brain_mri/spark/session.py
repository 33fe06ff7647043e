"""The Spark session: configured when Kedro starts, started when something needs it."""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from brain_mri.spark.java import use_java
from brain_mri.spark.watch import watch_cluster
from brain_mri.storage.files import open_filesystem
from brain_mri.storage.hadoop import DEFAULT_FILESYSTEM, read_properties, resourcemanager_addresses

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5

_settings: dict[str, str] = {}
_hadoop: dict[str, str] = {}  # what the session's Hadoop configuration has to say


class WrongSessionError(RuntimeError):
    """A session runs on another master or another default filesystem than the one configured."""


class MasterUnreachableError(RuntimeError):
    """Nothing answers where the Spark master (or YARN) should be."""


def configure(settings: dict[str, Any], filesystem: str | None = None) -> None:
    """Keep the settings of an environment's `spark.yml`; no JVM starts.

    Where `spark-submit` started this process there is a JVM already: what `spark-submit` was given goes
    before the settings, and the session starts here, because YARN ends a driver that has none after 100 s.

    Args:
        settings: Spark properties by name, for example `{"spark.master": "local[*]"}`.
        filesystem: URL of the filesystem on which the environment keeps its data, for example
            "hdfs://127.0.0.1:8020", if `hdfs:///` has to mean that one in Spark too; see
            `storage.hadoop.default_filesystem`.
    """
    _settings.clear()
    _settings.update({name: _text(value) for name, value in settings.items()})
    _hadoop.clear()
    if filesystem:
        _hadoop[DEFAULT_FILESYSTEM] = filesystem
    submitted = _submitted_settings()
    if submitted:
        _settings.update(submitted)
        get_session()


def get_session() -> SparkSession:
    """Return the session of this process, starting it (and the JVM) the first time.

    Raises:
        WrongSessionError: The session is on another master or default filesystem than the environment names.
        MasterUnreachableError: Nothing answers at the master's address.
        JavaNotFoundError: There is no Java that Spark could start on.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        _check_session(active)
        return active
    wanted = _wanted_master()
    use_java()
    if wanted.startswith("local"):
        # A laptop changes networks; a driver that talks to itself must not follow the host name there.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        # Without this, tasks would take whatever `python3` the PATH has, not the one with our packages.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    check_master(wanted)
    if _settings.get("spark.eventLog.enabled") == "true" and "spark.eventLog.dir" in _settings:
        # Spark does not start without it.
        filesystem, path = open_filesystem(_settings["spark.eventLog.dir"])
        filesystem.makedirs(path, exist_ok=True)
    logger.info("Starting Spark on %s.", wanted)
    builder = SparkSession.builder.appName("brain_mri").master(wanted)
    for name, value in _settings.items():
        builder = builder.config(name, value)
    started = builder.getOrCreate()
    _check_session(started)
    if not wanted.startswith("local"):
        watch_cluster(started.sparkContext, partial(check_master, wanted))
    return started


def check_configured() -> None:
    """See that the configured master answers, and that a session that runs here is on it; no JVM starts.

    Raises:
        WrongSessionError: The session is on another master or default filesystem than the environment names.
        MasterUnreachableError: Nothing answers at the master's address.
    """
    from pyspark.sql import SparkSession

    if not _is_submitted():  # else the master has started this process
        check_master(_wanted_master())
    active = SparkSession.getActiveSession()
    if active is not None:
        _check_session(active)


def check_master(master: str) -> None:
    """Ask whether anything listens where a master should be; Spark itself would try for a minute or more.

    Args:
        master: As in `spark.master`. A local one is always there.

    Raises:
        MasterUnreachableError: No address of it answers within `CONNECT_SECONDS`.

    Example:
        >>> check_master("local[*]")
    """
    refusals = []
    for address in _master_addresses(master):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            refusals.append(f"{address}: {getattr(error, 'strerror', None) or error}")
        else:
            return
    if refusals:
        raise MasterUnreachableError(
            f"Spark's master {master} does not answer ({'; '.join(refusals)}). Start it (here: `kedro "
            "cluster up`), or name another: SPARK_MASTER, or spark.master in conf/<environment>/spark.yml."
        )


def _master_addresses(master: str) -> list[str]:
    """`host:port` of everything that may answer for a master; empty for what is not known."""
    if master == "yarn":
        return resourcemanager_addresses(read_properties())
    if master.startswith("spark://"):
        return master.removeprefix("spark://").split(",")
    if master.startswith("k8s://"):
        url = urlsplit(master.removeprefix("k8s://"))
        return [f"{url.hostname}:{url.port or {'http': 80}.get(url.scheme, 443)}"] if url.hostname else []
    return []


def _check_session(session: SparkSession) -> None:
    """Compare a session with what is configured.

    Raises:
        WrongSessionError: They differ; the message names both.
    """
    context = session.sparkContext
    remedy = "Stop that session (`spark.stop()`)"
    if context.master != _wanted_master():
        raise WrongSessionError(
            f"A Spark session runs on {context.master} in this process, but the environment asks for "
            f"{_wanted_master()}. {remedy}, or set spark.master in conf/<environment>/spark.yml."
        )
    for name, wanted in _hadoop.items():
        found = str(context._jsc.hadoopConfiguration().get(name))
        if found.rstrip("/") != wanted.rstrip("/"):
            raise WrongSessionError(
                f"The Spark session's default filesystem is {found}, but the environment's data is on "
                f"{wanted}. {remedy}, and let HADOOP_CONF_DIR alone say which it is: no "
                f"spark.hadoop.{name} in Spark's settings."
            )


def is_local() -> bool:
    """Whether Spark runs inside this process, and so sees the files of this machine; no JVM starts."""
    return _wanted_master().startswith("local")


def _wanted_master() -> str:
    return _settings.get("spark.master", "local[*]")


def _is_submitted() -> bool:
    """Whether `spark-submit` started this process."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _submitted_settings() -> dict[str, str]:
    """Properties that `spark-submit` was given, the master among them; empty where it did not start this."""
    if not _is_submitted():
        return {}
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()  # connects to the JVM of spark-submit, whose properties are wanted
    return dict(SparkConf().getAll())


def _text(value: Any) -> str:
    """A setting as Spark writes it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
