"""What a user may choose of a cluster on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from brain_mri.cluster.connection import ClusterError

LOOPBACK = "127.0.0.1"

_MEBIBYTES = {"m": 1, "g": 1024}


class OptionError(ClusterError):
    """An option of the cluster cannot be met; the message names it."""


@dataclass(frozen=True)
class ClusterOptions:
    """The cluster to start.

    Attributes:
        datanodes: Number of DataNodes.
        replication: DataNodes that hold each block.
        workers: Number of Spark workers, or of YARN NodeManagers.
        yarn: YARN instead of Spark's own master and workers.
        namenode_memory: Heap of the NameNode, as Java writes sizes, for example "256m" or "1g".
        datanode_memory: Heap of each DataNode.
        worker_memory: What each worker offers to executors.
        worker_cores: Cores that each worker offers; 0 shares this machine's among the workers.
        ports: Ports by name, of those in `ports.PREFERRED_PORTS`; 0 takes any that is free. What is not named
            gets the usual port, or another one where that is taken.

    Raises:
        OptionError: A value is out of its range.
    """

    datanodes: int = 3
    replication: int = 2
    workers: int = 2
    yarn: bool = False
    namenode_memory: str = "256m"
    datanode_memory: str = "192m"
    worker_memory: str = "3g"
    worker_cores: int = 0
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("datanodes", "replication", "workers"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name} is {getattr(self, name)}, expected 1 or more.")
        if self.worker_cores < 0:
            raise OptionError(f"--worker-cores is {self.worker_cores}, expected 1 or more; 0: its share.")
        if self.replication > self.datanodes:
            raise OptionError(
                f"--replication is {self.replication}, but {self.datanodes} DataNodes hold a block at most "
                f"{self.datanodes} times. Start more of them: --datanodes {self.replication}"
            )
        for name in ("namenode_memory", "datanode_memory", "worker_memory"):
            mebibytes(getattr(self, name), name)

    @property
    def cores_per_worker(self) -> int:
        """Cores that each worker offers, at least 1."""
        return self.worker_cores or max(1, (os.cpu_count() or 1) // self.workers)


def mebibytes(size: str, name: str = "memory") -> int:
    """A size as Java writes it, in MiB.

    Args:
        size: A whole number and a unit, m or g.
        name: The option that it was given for, for the error.

    Raises:
        OptionError: It is written otherwise.

    Example:
        >>> mebibytes("3g")
        3072
    """
    match = re.fullmatch(r"([1-9]\d*)([mg])", size.lower())
    if match is None:
        raise OptionError(f"--{name.replace('_', '-')} is {size!r}, expected a size such as 512m or 2g.")
    return int(match.group(1)) * _MEBIBYTES[match.group(2)]
