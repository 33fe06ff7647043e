"""Hadoop's own shell, from PySpark's jars: what other tools see of the same HDFS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from brain_mri.cluster.connection import ClusterError
from brain_mri.cluster.jars import pyspark_folder
from brain_mri.spark.java import find_java

# What newer Javas would say of Hadoop's libraries is nothing that a user can mend; older ones pass over this.
QUIET = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


class ShellError(ClusterError):
    """There is no cluster to talk to."""


def run_shell(arguments: Sequence[str]) -> int:
    """Run `hdfs dfs` on the cluster that `HADOOP_CONF_DIR` names, in this terminal.

    Args:
        arguments: As Hadoop's shell takes them, for example `["-ls", "/user"]`.

    Returns:
        Its exit status.

    Raises:
        ShellError: No cluster is configured.
    """
    configuration = os.environ.get("HADOOP_CONF_DIR")
    if not configuration:
        raise ShellError(
            "No cluster is configured. Start one here with `kedro cluster up`, or set HADOOP_CONF_DIR to the "
            "configuration folder of yours."
        )
    command = [
        str(find_java().path / "bin" / "java"),
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", *QUIET),
        *("-cp", f"{configuration}:{pyspark_folder() / 'jars' / '*'}"),
        "org.apache.hadoop.fs.FsShell",
        *arguments,
    ]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - the user's own Java
