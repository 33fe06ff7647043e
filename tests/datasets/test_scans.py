"""Packing scans: every file accounted for, copies stored once, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.io import DatasetError

from brain_mri.datasets.scans import PackedScansDataset, Packing, plan_blocks
from brain_mri.datasets.source import Source, list_files
from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten pictures, two copies of the first, and three files that cannot be used."""
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(10):
        (folder / f"{seed}.png").write_bytes(_picture(seed))
    for name in ("copy-a.png", "copy-b.png"):
        (folder / name).write_bytes(_picture(0))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"no picture")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    return folder


def _pack(source: Path, target: Path, blocks: int = 1) -> PackedScansDataset:
    files = list_files(Source("folder", str(source), "test"))
    dataset = PackedScansDataset(filepath=str(target / "scans.parquet"))
    plan = plan_blocks(files) if blocks == 1 else _cut(files, blocks)
    dataset.save(Packing(plan, ProcessLauncher(workers=1)))
    return dataset


def _cut(files: pd.DataFrame, blocks: int):  # type: ignore[no-untyped-def]
    from brain_mri.datasets.scans import Block

    rows = list(zip(files["path"], files["url"], strict=True))
    return tuple(Block(number, tuple(rows[number::blocks])) for number in range(blocks))


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_every_file_is_accounted_for_and_every_scan_is_stored_once(
    source: Path, tmp_path: Path, blocks: int
) -> None:
    packed = _pack(source, tmp_path, blocks).load()
    inspections = packed.inspections()
    assert inspections["path"].tolist() == sorted(path.name for path in source.iterdir())
    reasons = dict(zip(inspections["path"], inspections["reason"], strict=True))
    refused = {"empty.jpg": "empty", "gone.jpg": "unreadable", "text.jpg": "not_an_image"}
    assert {path: reason for path, reason in reasons.items() if reason} == refused
    stored = pq.read_table(tmp_path / "scans.parquet", columns=["scan_id", "content"]).to_pydict()
    assert sorted(stored["scan_id"]) == sorted(
        set(inspections.loc[inspections["status"] == "accepted", "scan_id"])
    )
    assert sorted(stored["content"]) == sorted(_picture(seed) for seed in range(10))
    assert sum(record["rows"] for record in packed.stats()) == 10


def test_what_was_refused_keeps_its_bytes(source: Path, tmp_path: Path) -> None:
    packed = _pack(source, tmp_path).load()
    assert packed.refused_contents() == {"empty.jpg": b"", "gone.jpg": None, "text.jpg": b"no picture"}
    scan_id = packed.inspections().set_index("path").loc["3.png", "scan_id"]
    assert packed.contents([scan_id]) == {scan_id: _picture(3)}


def test_a_packing_that_breaks_off_leaves_nothing_that_looks_complete(source: Path, tmp_path: Path) -> None:
    class BreakingLauncher:
        written = 0

        def map(self, function, items):  # type: ignore[no-untyped-def]
            yield function(items[0])
            self.written = len(list(tmp_path.rglob("part-00000.parquet")))
            raise OSError("a worker died")

    files = list_files(Source("folder", str(source), "test"))
    dataset, launcher = PackedScansDataset(filepath=str(tmp_path / "scans.parquet")), BreakingLauncher()
    with pytest.raises(DatasetError, match="a worker died"):
        dataset.save(Packing(_cut(files, 2), launcher))
    assert launcher.written, "the fault must come after the first block was written"
    assert not dataset.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    with pytest.raises(DatasetError, match="kedro run --pipelines=ingestion"):
        dataset.load()


def test_the_plan_depends_on_the_files_alone_and_keeps_sizes_together() -> None:
    sizes = [10, 20, 20, 20, 30, 40, 50, 60, 70] * 40
    files = pd.DataFrame({"path": [f"{n:04d}" for n in range(len(sizes))], "url": "u", "bytes": sizes})
    plan = plan_blocks(files, block_bytes=2_000)
    shuffled = plan_blocks(files.sample(frac=1, random_state=1), block_bytes=2_000)
    assert plan == shuffled
    assert sorted(path for block in plan for path, _ in block.files) == files["path"].tolist()
    small = {path for path, size in zip(files["path"], sizes, strict=True) if size == 10}
    assert sum(1 for block in plan if small & {path for path, _ in block.files}) == 1


def test_the_preview_needs_no_spark(source: Path, tmp_path: Path) -> None:
    assert len(_pack(source, tmp_path).preview()) > 100


@pytest.mark.spark
def test_spark_executors_pack_the_same_as_processes(source: Path, tmp_path: Path, spark: Any) -> None:
    files = list_files(Source("folder", str(source), "test"))
    stored = {}
    for name, launcher in (("spark", SparkLauncher(spark)), ("process", ProcessLauncher(workers=1))):
        dataset = PackedScansDataset(filepath=str(tmp_path / name / "scans.parquet"))
        dataset.save(Packing(_cut(files, 3), launcher))
        table = pq.read_table(tmp_path / name / "scans.parquet", columns=["scan_id", "content"])
        stored[name] = (table.sort_by("scan_id"), dataset.load().inspections())
    assert stored["spark"][0].equals(stored["process"][0])
    pd.testing.assert_frame_equal(stored["spark"][1], stored["process"][1])
