"""What `benchmarks/storage.py` rests on: every way writes the same scans, and rates are compared fairly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.storage import PLAIN, Row, choose_scans, ratio, read_files, write_files


@pytest.mark.parametrize("verified", [False, True])
def test_single_files_hold_each_decodable_content_once(
    make_scans: Callable[..., Path], tmp_path: Path, verified: bool
) -> None:
    source = make_scans(60)
    files = choose_scans(source)
    assert files["sha256"].is_unique
    assert (
        0 < len(files) < sum(path.is_file() for path in source.rglob("*"))
    )  # copies and damaged files are left out

    write_files(files, str(tmp_path / "written"), threads=4, verified=verified)

    assert read_files(files, str(tmp_path / "written"), threads=4) == set(files["sha256"])


def test_ratios_compare_scans_a_second_with_the_plain_way_at_the_same_place() -> None:
    plain = Row("write", "HDFS", PLAIN, False, files=10, seconds=5)
    packed = Row("write", "HDFS", "packed", True, files=100, seconds=2)
    elsewhere = Row("write", "local", PLAIN, False, files=10, seconds=1)
    assert ratio(packed, [elsewhere, plain, packed]) == 25
