"""A cluster on this machine: its folder, options and addresses, and `cluster.json`, which keeps them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from brain_mri.cluster.connection import STATE_FILE, read_state
from brain_mri.cluster.options import LOOPBACK, ClusterOptions


@dataclass(frozen=True)
class LocalCluster:
    """What is decided of a cluster when it is started for the first time, and holds until it is down.

    Attributes:
        folder: Everything that belongs to it lies here.
        options: What the user chose.
        addresses: "host:port" of every listener, by its name.
    """

    folder: Path
    options: ClusterOptions
    addresses: Mapping[str, str]

    @property
    def configuration(self) -> Path:
        """The folder for `HADOOP_CONF_DIR`."""
        return self.folder / "conf"

    @property
    def storage(self) -> Path:
        """The folder in which NameNode and DataNodes keep what survives `down` and `up`."""
        return self.folder / "hdfs"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process use this cluster."""
        conf = str(self.configuration)
        return {
            "HADOOP_CONF_DIR": conf,
            **({"YARN_CONF_DIR": conf} if self.options.yarn else {}),
            "SPARK_CONF_DIR": conf,
            "SPARK_MASTER": "yarn" if self.options.yarn else f"spark://{self.addresses['spark_master']}",
            "SPARK_LOCAL_IP": LOOPBACK,
        }

    def save(self, processes: Mapping[str, psutil.Process]) -> None:
        """Write `cluster.json`, whole or not at all.

        Args:
            processes: The daemons that run, by name.
        """
        state = {
            "options": asdict(self.options),
            "addresses": dict(self.addresses),
            "environment": self.environment,
            "processes": [
                {
                    "role": name.split("-")[0],
                    "number": int(name.partition("-")[2] or 1),
                    "pid": process.pid,
                    "created": process.create_time(),
                    "log": str(self.folder / "logs" / f"{name}.log"),
                }
                for name, process in processes.items()
            ],
        }
        draft = self.folder / f"{STATE_FILE}.new"
        draft.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        draft.replace(self.folder / STATE_FILE)

    def describe(self) -> str:
        """Where its daemons and web pages are, how to use it and how to stop it, for a terminal."""
        options, addresses = self.options, self.addresses
        master = "resourcemanager" if options.yarn else "spark_master"
        kind = "YARN   resourcemanager" if options.yarn else "Spark  spark"
        cores = options.cores_per_worker
        return "\n".join(
            [
                f"HDFS   hdfs://{addresses['namenode']}   DataNodes: {options.datanodes}, each block on "
                f"{options.replication} of them",
                f"       http://{addresses['namenode_http']}/",
                f"{kind}://{addresses[master]}   workers: {options.workers}, each with {cores} "
                f"{'core' if cores == 1 else 'cores'} and {options.worker_memory} of memory",
                f"       http://{addresses[f'{master}_http']}/",
                "Use it:  kedro run --env=cluster",
                "Other programs find it by:",
                *(f"  export {name}={shlex.quote(value)}" for name, value in self.environment.items()),
                "Stop it: kedro cluster down   (the data stays; kedro cluster clean removes it)",
            ]
        )


def load_cluster(folder: Path) -> LocalCluster | None:
    """The cluster that `cluster.json` in a folder describes; None where there is none."""
    state: dict[str, Any] = read_state(folder)
    if not state:
        return None
    return LocalCluster(folder, ClusterOptions(**state["options"]), state["addresses"])
