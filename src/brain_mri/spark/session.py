"""The Spark session: configured when Kedro starts, started when something needs it."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from brain_mri.spark.java import use_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_settings: dict[str, str] = {}


def configure(settings: dict[str, Any]) -> None:
    """Keep the settings of an environment's `spark.yml`; no JVM starts.

    Args:
        settings: Spark properties by name, for example `{"spark.master": "local[*]"}`.
    """
    _settings.clear()
    _settings.update({name: _text(value) for name, value in settings.items()})


class WrongSessionError(RuntimeError):
    """A session is running already, on another master than the one configured."""


def get_session() -> SparkSession:
    """Return the session of this process, starting it (and the JVM) the first time.

    Raises:
        WrongSessionError: A session runs on another master than the environment names.
        JavaNotFoundError: There is no Java that Spark could start on.
    """
    from pyspark.sql import SparkSession

    wanted = _settings.get("spark.master", "local[*]")
    active = SparkSession.getActiveSession()
    if active is not None:
        found = active.sparkContext.master
        if found != wanted:
            raise WrongSessionError(
                f"A Spark session runs on {found} in this process, but the environment asks for {wanted}. "
                "Stop that session (`spark.stop()`), or set spark.master in conf/<environment>/spark.yml."
            )
        return active
    use_java()
    if wanted.startswith("local"):
        # A laptop changes networks; a driver that talks to itself must not follow the host name there.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        # Without this, tasks would take whatever `python3` the PATH has, not the one with our packages.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    logger.info("Starting Spark on %s.", wanted)
    builder = SparkSession.builder.appName("brain_mri").master(wanted)
    for name, value in _settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _text(value: Any) -> str:
    """A setting as Spark writes it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
