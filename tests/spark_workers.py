"""The processes that tasks of this process's Spark session have started for workers."""

from __future__ import annotations

import psutil


def running_workers() -> list[psutil.Process]:
    """Those below this process: other tests may run beside it."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid in ours and "brain_mri.spark.worker" in (process.info["cmdline"] or [])
    ]
