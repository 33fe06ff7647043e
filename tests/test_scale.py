"""Tens of thousands of files: ingested, split and prepared in a driver of two gigabytes.

A hundred thousand are what `benchmarks/scale.py` measures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import measure

GIBIBYTE = 2**30


@pytest.mark.slow
@pytest.mark.spark
def test_thirty_thousand_scans_need_little_memory(tmp_path: Path) -> None:
    """Drawing them takes longest, about two minutes on two cores; some 2 GB of disk are needed."""
    scale = measure(30_000, tmp_path)
    assert scale.driver_bytes + scale.jvm_bytes < 2 * GIBIBYTE, scale
    assert scale.driver_bytes > 0.1 * GIBIBYTE, "the driver must have been looked at"
    assert scale.workers_bytes > scale.driver_bytes / 10, "its workers too"
