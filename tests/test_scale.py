"""A hundred thousand files: ingested, split and prepared in a driver of two gigabytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import measure

GIBIBYTE = 2**30


@pytest.mark.slow
@pytest.mark.spark
def test_a_hundred_thousand_scans_need_little_memory(tmp_path: Path) -> None:
    """Drawing them takes longest, about six minutes on two cores; some 6 GB of disk are needed."""
    scale = measure(100_000, tmp_path)
    assert scale.driver_bytes + scale.jvm_bytes < 2 * GIBIBYTE, scale
    assert scale.driver_bytes > 0.1 * GIBIBYTE, "the driver must have been looked at"
    assert scale.workers_bytes > scale.driver_bytes / 10, "its workers too"
