"""Which cluster a process uses: the user's own by HADOOP_CONF_DIR, else the one that was started here."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "BRAIN_MRI_CLUSTER"
STATE_FILE = "cluster.json"


class ClusterError(RuntimeError):
    """The cluster on this machine cannot do what was asked; the message says why and how to mend it."""


def cluster_folder(project: Path) -> Path:
    """The folder of the cluster on this machine: `$BRAIN_MRI_CLUSTER`, else `.cluster` in the project.

    Example:
        >>> cluster_folder(Path("/home/ada/brain_mri"))  # doctest: +SKIP
        PosixPath('/home/ada/brain_mri/.cluster')
    """
    return Path(os.environ.get(FOLDER_VARIABLE) or project / ".cluster").absolute()


def hadoop_user() -> str:
    """Whose folder on HDFS results go to: `HADOOP_USER_NAME`, else the user of this process.

    Example:
        >>> hadoop_user()  # doctest: +SKIP
        'ada'
    """
    return os.environ.get("HADOOP_USER_NAME") or os.environ.get("USER") or getpass.getuser()


def read_state(folder: Path) -> dict[str, Any]:
    """What `kedro cluster up` noted of the cluster in a folder; empty where none is up."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return dict(state)


def use_cluster(project: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let this process, and those that it starts, use the cluster that was started here, if there is one.

    A `HADOOP_CONF_DIR` of the user always wins: then nothing is changed. What else is set already stays too.

    Args:
        project: The project's folder.
        environ: The environment to read and to write, by default this process's.
    """
    if environ.get("HADOOP_CONF_DIR"):
        return
    variables = read_state(cluster_folder(project)).get("environment", {})
    if variables:
        # Executors on this machine find our packages in the Python that runs here.
        for name, value in {**variables, "PYSPARK_PYTHON": sys.executable}.items():
            environ.setdefault(name, value)
