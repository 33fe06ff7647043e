"""Giving up a job whose cluster is gone: Spark itself waits for it, for ever and in silence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds without any executor after which the master is asked whether it is still there."""

_PAUSE = 2.0


def watch_cluster(context: SparkContext, ask: Callable[[], None]) -> None:
    """Look after the jobs of a session, in a thread of their own, until the session ends.

    A job that no executor works on waits: for its turn on a busy cluster, which is said once, or because the
    cluster is gone. Then the job is cancelled, which whoever waits for it sees as an error.

    Args:
        context: Of the session.
        ask: Raises a `RuntimeError`, with a sentence, if nothing answers where the master should be.

    Example:
        >>> watch_cluster(session.sparkContext, partial(check_master, "spark://127.0.0.1:7077"))
    """
    threading.Thread(target=_watch, args=(context, ask), name="watch_cluster", daemon=True).start()


def _watch(context: SparkContext, ask: Callable[[], None]) -> None:
    since: float | None = None  # when a job was first seen waiting
    told = False
    while True:
        time.sleep(_PAUSE)
        try:
            if not _waits(context):
                since, told = None, False
                continue
        except Exception:  # whatever py4j makes of a session that has ended
            return
        since = since or time.monotonic()
        if time.monotonic() - since < PATIENCE:
            continue
        try:
            ask()
        except RuntimeError as error:
            logger.warning("%s The run has no executor left either and gives its Spark job up.", error)
            context.cancelAllJobs()
            since = None
            continue
        if not told:
            told = True
            logger.warning(
                "No executor works for this run; it waits until the cluster gives it one. "
                "`kedro cluster status` says how the cluster is."
            )


def _waits(context: SparkContext) -> bool:
    """Whether there are jobs and no executors; the driver itself counts as one."""
    tracker = context._jsc.sc().statusTracker()
    return len(tracker.getActiveJobIds()) > 0 and len(tracker.getExecutorInfos()) <= 1
