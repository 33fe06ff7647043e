"""What a task does with its piece; no Spark is needed for that."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.spark import preparing
from brain_mri.spark.preparing import UNUSED, PrepareTarget, ScanPiece, prepare_piece

SCHEMA = pa.schema(
    [("scan_id", pa.string()), ("label", pa.int64()), ("pixels", pa.binary())], metadata={"a": "b"}
)
MEBIBYTE = 2**20


def _piece(folder: Path, count: int = 12, protocol: str = "", side: int = 48) -> ScanPiece:
    """Scans 0, 3, 6 … are for training, 1, 4 … for test, 2, 5 … unused; two row groups."""
    contents = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (side, side), dtype=np.uint8)
        contents.append(cv2.imencode(".png", pixels)[1].tobytes())
    table = pa.table({"scan_id": [f"{number:064x}" for number in range(count)], "content": contents})
    pq.write_table(table, folder / "part-00003-0123456789ab.parquet", row_group_size=-(-count // 2))
    splits = np.array([(0, 1, UNUSED)[number % 3] for number in range(count)], np.int8)
    labels = np.arange(count) % 2
    return ScanPiece(f"{protocol}{folder}/part-00003-0123456789ab.parquet", "sha", (0, 1), splits, labels)


def _target(folder: Path, protocol: str = "", size: int = 32) -> PrepareTarget:
    folders = {split: f"{protocol}{folder}/{split}" for split in ("train", "test")}
    return PrepareTarget(folders, f"{protocol}{folder}/records", SCHEMA, PrepareOptions(size))


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).parts[0] for path in folder.glob("*/*") if path.is_file())


def test_a_part_a_split_holds_its_scans_in_their_order(tmp_path: Path) -> None:
    piece, target = _piece(tmp_path), _target(tmp_path / "out")
    record = prepare_piece(piece, target)
    assert record["name"] == target.name_of(piece)
    assert record["name"].startswith("part-00003-000-")
    contents = pq.read_table(piece.block)["content"].to_pylist()
    for split, first in (("train", 0), ("test", 1)):
        table = pq.read_table(tmp_path / "out" / split / f"{record['name']}.parquet")
        numbers = list(range(first, 12, 3))
        assert table["scan_id"].to_pylist() == [f"{number:064x}" for number in numbers]
        assert table["label"].to_pylist() == [number % 2 for number in numbers]
        expected = [prepare_scan(contents[number], PrepareOptions(32)).tobytes() for number in numbers]
        assert table["pixels"].to_pylist() == expected
        part = record["splits"][split]
        assert (part["rows"], part["labels"], part["bytes"]) == (4, {"0": 2, "1": 2}, 4 * 32 * 32)
        assert (part["minimum"], part["maximum"]) == (min(map(min, expected)), max(map(max, expected)))
        assert part["stored_bytes"] == (tmp_path / "out" / split / part["name"]).stat().st_size
    assert record["rows"] == 8


def test_the_name_says_all_that_decides_about_the_content(tmp_path: Path) -> None:
    piece, target = _piece(tmp_path), _target(tmp_path)
    others = [
        target.name_of(ScanPiece(piece.block, "other", (0, 1), piece.splits, piece.labels)),
        target.name_of(ScanPiece(piece.block, "sha", (0,), piece.splits, piece.labels)),
        target.name_of(ScanPiece(piece.block, "sha", (0, 1), piece.splits[::-1], piece.labels)),
        target.name_of(ScanPiece(piece.block, "sha", (0, 1), piece.splits, piece.labels + 1)),
        _target(tmp_path, size=33).name_of(piece),
        PrepareTarget(target.folders, "", SCHEMA.with_metadata({"a": "c"}), target.options).name_of(piece),
        PrepareTarget(target.folders, "", SCHEMA, PrepareOptions(32, clahe=True)).name_of(piece),
    ]
    assert len({target.name_of(piece), *others}) == 8
    assert _target(tmp_path / "elsewhere").name_of(piece) == target.name_of(piece)


def test_an_attempt_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def fail_late(content: bytes, *arguments: Any) -> Any:
        if len(seen) == 7:
            assert _files(tmp_path / "out") == ["test", "train"], "the fault must come after parts were begun"
            raise OSError("the executor lost its disk")
        seen.append("prepared")
        return prepare_scan(content, *arguments)

    monkeypatch.setattr(preparing, "prepare_scan", fail_late)
    with pytest.raises(OSError, match="lost its disk"):
        prepare_piece(_piece(tmp_path), _target(tmp_path / "out"))
    assert _files(tmp_path / "out") == []


def test_a_storage_that_fails_for_a_moment_gets_the_parts_once_more(
    tmp_path: Path, failing_disk: Callable[..., Any]
) -> None:
    expected = prepare_piece(_piece(tmp_path), _target(tmp_path / "once"))
    disk = failing_disk("/out/test/", faults=2)
    record = prepare_piece(_piece(tmp_path, protocol="failing://"), _target(tmp_path / "out", "failing://"))
    assert disk.faults == 0, "the faults must fall into the task"
    assert [part["sha256"] for part in record["splits"].values()] == [
        part["sha256"] for part in expected["splits"].values()
    ]
    assert _files(tmp_path / "out") == ["records", "test", "train"]


def test_memory_is_that_of_row_groups_and_not_of_the_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROW_GROUP_BYTES", MEBIBYTE)
    piece = _piece(tmp_path, count=300, side=40)
    tracemalloc.start()
    try:
        record = prepare_piece(piece, _target(tmp_path / "out", size=512))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(part["bytes"] for part in record["splits"].values()) >= 50 * MEBIBYTE
    assert max(record["splits"]["train"]["row_groups"]) * 512 * 512 <= MEBIBYTE
    assert peak < 10 * MEBIBYTE
