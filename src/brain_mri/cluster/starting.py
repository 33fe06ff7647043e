"""Starting the daemons of a cluster, and formatting its filesystem if there is none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from brain_mri.cluster import daemons
from brain_mri.cluster.roles import Daemon, daemon_environment, format_daemon
from brain_mri.cluster.state import LocalCluster
from brain_mri.cluster.stored import is_formatted, namenode_folder

_FORMAT_LIMIT = 120  # seconds


class Starter:
    """Starts daemons of one cluster.

    Attributes:
        started: What was started, by name.
    """

    def __init__(self, cluster: LocalCluster, java: Path, pyspark: Path, jars: Sequence[Path]) -> None:
        self.started: dict[str, psutil.Process] = {}
        self._cluster = cluster
        self._java = java
        places = [cluster.configuration, cluster.folder / "web", *jars, pyspark / "jars" / "*"]
        self._classpath = ":".join(map(str, places))
        self._environment = daemon_environment(cluster, java, pyspark)

    def start(self, missing: Sequence[Daemon]) -> None:
        """Start daemons all at once; they wait for each other.

        Raises:
            DaemonError: One could not be started, or the filesystem not formatted.
        """
        if not is_formatted(self._cluster.storage):
            self._format()
        for daemon in missing:
            self.started[daemon.name] = self._start(daemon)

    def _start(self, daemon: Daemon) -> psutil.Process:
        folder = self._cluster.folder
        command = daemons.java_command(daemon, folder, self._java, self._classpath)
        return daemons.start(daemon, folder, command, self._environment)

    def _format(self) -> None:
        """Make an empty filesystem beside and rename it, so that one that is broken off is no filesystem."""
        final = namenode_folder(self._cluster.storage)
        draft = final.with_name("name.new")
        shutil.rmtree(draft, ignore_errors=True)
        daemon = format_daemon(draft)
        daemons.wait_for_end(self._start(daemon), _FORMAT_LIMIT)
        if not (draft / "current" / "VERSION").is_file():
            raise daemons.DaemonError(
                f"No filesystem could be made in {draft}. The end of the log:\n"
                f"{daemons.log_tail(self._cluster.folder, daemon.name)}"
            )
        if final.is_dir():
            final.rmdir()  # it is empty
        draft.rename(final)
