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


def get_session() -> SparkSession:
    """Return the session of this process, starting it (and the JVM) the first time."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    use_java()
    master = _settings.get("spark.master", "local[*]")
    if master.startswith("local"):
        # A laptop changes networks; a driver that talks to itself must not follow the host name there.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        # Without this, tasks would take whatever `python3` the PATH has, not the one with our packages.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    logger.info("Starting Spark on %s.", master)
    builder = SparkSession.builder.appName("brain_mri")
    for name, value in _settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _text(value: Any) -> str:
    """A setting as Spark writes it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
