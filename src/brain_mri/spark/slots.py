"""Places for tasks that have to run at the same time: asked for first, and watched."""

from __future__ import annotations

import logging
import time
from typing import Any

from brain_mri.spark.processes import Needs

logger = logging.getLogger(__name__)

SLOT_SECONDS = 30.0
"""How long executors may take to appear before there are too few."""

_PAUSE = 0.5


class TooFewSlotsError(RuntimeError):
    """There are fewer task slots than workers that have to run at the same time."""


class Slots:
    """Places for tasks that run at the same time, each with what a worker needs."""

    def __init__(self, context: Any, workers: int, needs: Needs) -> None:
        self._context, self._workers, self._needs = context, workers, needs
        self._scheduler = context._jsc.sc()
        self._is_local = str(context.master).split("[")[0] == "local"
        self._on_demand = context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true"
        self._profile: Any = None
        self._lacking_since: float | None = None
        if (needs.cores > 1 or needs.gpus) and not self._is_local:  # a slot of local mode is a core
            from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

            requests = TaskResourceRequests().cpus(needs.cores)
            if needs.gpus:
                requests.resource("gpu", needs.gpus)
            self._profile = ResourceProfileBuilder().require(requests).build

    def rows(self, count: int | None = None) -> Any:
        """So many empty partitions, one a worker if not told otherwise, on such slots."""
        count = count or self._workers
        rows = self._context.parallelize(range(count), count)
        return rows.withResources(self._profile) if self._profile else rows

    def wait(self) -> None:
        """Wait until there are enough: executors may be on their way.

        Raises:
            TooFewSlotsError: There are not, also after `SLOT_SECONDS`.
        """
        if self._needs.gpus and self._is_local:
            raise TooFewSlotsError(
                "Spark's local mode hands out no GPUs. With training.distribution=none TensorFlow uses the "
                "one it finds; training.worker_gpus=1 needs a cluster (docs/distributed-training.md#gpus)."
            )
        if self._on_demand and self._workers > 1:
            raise TooFewSlotsError(
                "Workers that start together need executors that are there before: Spark refuses them with "
                "spark.dynamicAllocation.enabled=true. Set it to false in conf/<environment>/spark.yml."
            )
        while self._found() < self._workers and not self._on_demand:
            self.check()
            time.sleep(_PAUSE)

    def check(self) -> None:
        """See that not too few have been there for too long.

        Raises:
            TooFewSlotsError: They have.
        """
        if self.are_lost():
            raise TooFewSlotsError(self.missing())

    def are_lost(self) -> bool:
        """Whether there have been too few for `SLOT_SECONDS`, in local mode whether there are too few."""
        if self._found() >= self._workers or self._on_demand:  # executors come with tasks
            self._lacking_since = None
            return False
        now = time.monotonic()
        self._lacking_since = self._lacking_since or now
        return self._is_local or now - self._lacking_since > SLOT_SECONDS

    def missing(self) -> str:
        """What is there, what is needed and what may be done."""
        more = "more workers or executors, or more cores for each executor (spark.executor.cores)"
        if self._is_local:
            more = "a machine with more cores"
        if self._needs.gpus:
            more += ", each with as many GPUs (spark.executor.resource.gpu.amount)"
        wanted, fewer = f"{self._workers} workers of {self._needs} have to run at the same time", ""
        if self._workers == 1:
            wanted = f"A worker of {self._needs} has to run"
        else:
            fewer = "training.num_workers, "
        return (
            f"{wanted}, but {self._context.master} has room for {self._found()}. Ask for fewer "
            f"({fewer}{self._needs.asked_by}_cores), or give Spark more: {more}."
        )

    def at_once(self) -> int | None:
        """How many workers may be started at the same time; None where Spark itself sees to that."""
        return max(self._found(), 1) if self._is_local else None

    def _found(self) -> int:
        """How many such tasks can run at the same time; 0 where no executor has as many cores."""
        from py4j.protocol import Py4JJavaError

        manager = self._scheduler.resourceProfileManager()
        if self._profile is None:
            found = int(self._scheduler.maxNumConcurrentTasks(manager.defaultResourceProfile()))
            return found // self._needs.cores
        profile = self._profile._java_resource_profile
        try:
            manager.addResourceProfile(profile)  # does nothing the second time
            return int(self._scheduler.maxNumConcurrentTasks(profile))
        except Py4JJavaError as error:
            logger.debug("Spark refuses tasks of %s: %s", self._needs, error)
            return 0
