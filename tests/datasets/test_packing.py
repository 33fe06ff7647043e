"""The plan of blocks, and what the task of a block does with memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from brain_mri.datasets.packing import INSPECTIONS, Block, pack_block, plan_blocks
from brain_mri.imaging.decode import DecodeLimits

MEBIBYTE = 2**20


def _write_pictures(folder: Path, count: int) -> None:
    random = np.random.default_rng(1)
    for number in range(count):
        pixels = random.integers(0, 255, (1024, 1024), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.bmp"), pixels)


def _block(folder: Path) -> Block:
    return Block(0, tuple((path.name, str(path)) for path in sorted(folder.iterdir())))


def test_the_plan_depends_on_the_files_alone_and_keeps_sizes_together() -> None:
    sizes = [10, 20, 20, 20, 30, 40, 50, 60, 70] * 40
    files = pd.DataFrame({"path": [f"{n:04d}" for n in range(len(sizes))], "url": "u", "bytes": sizes})
    plan = plan_blocks(files, block_bytes=2_000)
    shuffled = plan_blocks(files.sample(frac=1, random_state=1), block_bytes=2_000)
    assert plan == shuffled
    assert sorted(path for block in plan for path, _ in block.files) == files["path"].tolist()
    small = {path for path, size in zip(files["path"], sizes, strict=True) if size == 10}
    assert sum(1 for block in plan if small & {path for path, _ in block.files}) == 1


def test_a_block_holds_files_of_all_kinds() -> None:
    """Classes differ in size and folder; a block of one class would make batches of one class."""
    rows = [
        (f"{label}/{n}.jpg", "u", base + n) for label, base in (("a", 1000), ("b", 9000)) for n in range(500)
    ]
    plan = plan_blocks(pd.DataFrame(rows, columns=["path", "url", "bytes"]), block_bytes=400_000)
    assert len(plan) > 3
    for block in plan[:-1]:
        share = sum(path.startswith("a/") for path, _ in block.files) / len(block.files)
        assert 0.25 < share < 0.75


@pytest.mark.parametrize("usable", [True, False])
def test_a_task_holds_about_a_row_group_and_not_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    monkeypatch.setattr("brain_mri.datasets.parts.ROW_GROUP_BYTES", 2 * MEBIBYTE)
    source = tmp_path / "source"
    source.mkdir()
    _write_pictures(source, 40)
    limits = DecodeLimits() if usable else DecodeLimits(max_pixels=1)
    tracemalloc.start()
    try:
        record = pack_block(_block(source), str(tmp_path / "packed"), limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record["bytes"] > 40 * MEBIBYTE
    assert peak < 20 * MEBIBYTE
    part = tmp_path / "packed" / ("" if usable else INSPECTIONS) / "part-00000.parquet"
    assert pq.ParquetFile(part).num_row_groups == 20


def test_a_machine_short_of_memory_puts_no_scan_into_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _write_pictures(source, 1)

    def no_memory(*arguments: object, **options: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", no_memory)
        with pytest.raises(MemoryError):
            pack_block(_block(source), str(tmp_path / "packed"), DecodeLimits())
    assert [path for path in (tmp_path / "packed").rglob("*") if path.is_file()] == []
