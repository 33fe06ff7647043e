"""What the task of a block does with memory, and with files that change under it."""

from __future__ import annotations

import errno
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from gcsfs.retry import HttpError
from PIL import Image

from brain_mri.datasets.blocks import Block
from brain_mri.datasets.packing import INSPECTIONS, SourceChangedError, pack_block, read_source
from brain_mri.imaging.decode import DEFAULT_LIMITS, DecodeLimits
from brain_mri.imaging.inspect import Inspection, inspect_scan
from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem
from tests.clouds import Cloud

MEBIBYTE = 2**20


def _write_pictures(folder: Path, count: int) -> None:
    random = np.random.default_rng(1)
    for number in range(count):
        pixels = random.integers(0, 255, (1024, 1024), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.bmp"), pixels)


def _block(folder: Path) -> Block:
    return Block(0, tuple((path.name, str(path)) for path in sorted(folder.iterdir())))


@pytest.mark.parametrize("usable", [True, False])
def test_a_task_holds_some_row_groups_and_not_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    monkeypatch.setattr("brain_mri.storage.parquet.ROW_GROUP_BYTES", 2 * MEBIBYTE)
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
    assert peak < 30 * MEBIBYTE
    part = tmp_path / "packed" / ("" if usable else INSPECTIONS) / record["name"]
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


def test_a_file_that_changes_between_two_looks_at_it_stops_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block's name says its content; one of other files under that name would pass for it later."""
    source = tmp_path / "source"
    source.mkdir()
    _write_pictures(source, 2)
    monkeypatch.setattr(
        "brain_mri.storage.parquet.ROW_GROUP_BYTES", 1
    )  # memory holds nothing: all is read twice
    looks: list[str] = []

    def inspect_and_change(content: bytes, limits: DecodeLimits) -> Inspection:
        looks.append("first file")
        (source / "1.bmp").write_bytes(b"another picture")
        return inspect_scan(content, limits)

    monkeypatch.setattr("brain_mri.datasets.packing.inspect_scan", inspect_and_change)
    with pytest.raises(SourceChangedError, match=r"1\.bmp changed"):
        pack_block(_block(source), str(tmp_path / "packed"), DecodeLimits())
    assert looks == ["first file"]
    assert [path for path in (tmp_path / "packed").rglob("*") if path.is_file()] == []


def test_a_storage_that_fails_for_a_moment_gets_the_block_once_more(
    tmp_path: Path, failing_disk: Callable[..., Any]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _write_pictures(source, 2)
    disk = failing_disk("part-", faults=3)  # the look at the record, then the block, then its inspections
    record = pack_block(_block(source), f"failing://{tmp_path}/packed", DecodeLimits())
    assert disk.faults == 0, "the faults must fall into the task"
    assert pq.read_metadata(tmp_path / "packed" / record["name"]).num_rows == record["rows"] == 2
    files = [path.name for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert sorted(files) == sorted([record["name"], record["name"], f"{record['name']}.json"])


@pytest.mark.parametrize("gone", ["storage", "file"])
def test_only_a_file_that_is_itself_at_fault_is_quarantined(
    tmp_path: Path, failing_disk: Callable[..., Any], gone: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _write_pictures(source, 2)
    disk = failing_disk("1.bmp", faults=gone == "storage", patience=0.0)
    block = Block(0, tuple((path, f"failing://{source}/{path}") for path in ("0.bmp", "1.bmp")))
    if gone == "file":
        (source / "1.bmp").unlink()
        assert pack_block(block, str(tmp_path / "packed"), DecodeLimits())["refused"] == {"unreadable": 1}
    else:
        with pytest.raises(StorageError, match=r"1\.bmp"):
            pack_block(block, str(tmp_path / "packed"), DecodeLimits())
        assert disk.faults == 0


def test_a_cloud_that_fails_is_no_bad_file(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem, bucket = open_filesystem(cloud.url)
    filesystem.pipe_file(f"{bucket}/scan.png", b"content")
    assert read_source(f"{cloud.url}/scan.png", DEFAULT_LIMITS) == b"content"
    missing = read_source(f"{cloud.url}/nothing.png", DEFAULT_LIMITS)
    assert isinstance(missing, Inspection)
    assert missing.reason == "unreadable"

    def fails(error: Exception) -> StorageError:
        def size(*_: Any, **__: Any) -> int:
            raise error

        monkeypatch.setattr(filesystem, "size", size)
        with pytest.raises(StorageError) as raised:
            read_source(f"{cloud.url}/scan.png", DEFAULT_LIMITS)
        return raised.value

    busy = fails(OSError(errno.EBUSY, "SlowDown"))
    assert busy.patience > 0
    forbidden: list[Exception] = [PermissionError("ExpiredToken")]
    if cloud.url.startswith("gs"):
        forbidden = [OSError("Forbidden: the bucket"), HttpError({"code": 401, "message": "expired"})]
    for error in forbidden:
        expired = fails(error)
        assert expired.patience == 0
        assert "renew" in str(expired)
