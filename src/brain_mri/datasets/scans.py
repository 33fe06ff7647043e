"""Scans packed into parquet blocks: what ingestion writes and everything else reads.

A block is written by one task. It reads each of its files once, inspects it, and writes `scan_id` and content
of what can be used to the block, and what it found out about every file (with the content of what was
refused) to a table beside it, in a folder that Spark and pyarrow pass over. Exact copies are stored once.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image

from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.inspect import THUMBNAIL_SIDE, Inspection, inspect_scan
from brain_mri.spark.launchers import Launcher
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, replace_folder, write_file

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

BLOCK_BYTES = 128 * 2**20
ROW_GROUP_BYTES = 16 * 2**20
INSPECTIONS = "_inspections"

_SCANS = pa.schema([("scan_id", pa.string()), ("content", pa.binary())])
_INSPECTIONS = pa.schema(
    [
        ("path", pa.string()),
        ("scan_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("bytes", pa.int64()),
        ("pixel_hash", pa.string()),
        ("dhash", pa.string()),
        ("thumbnail", pa.binary()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("bit_depth", pa.int64()),
        ("mean_intensity", pa.float64()),
        ("content", pa.binary()),
    ]
)
"""Path, the fields of `imaging.inspect.Inspection`, and the content of what was refused."""


@dataclass(frozen=True)
class Block:
    """The files that one task packs.

    Attributes:
        number: The block's place in the set.
        files: Path in the source, and URL to read it from.
    """

    number: int
    files: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """File name of the block and of its inspections."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Packing:
    """A plan to pack files, and what runs it.

    It is a lazy value that `PackedScansDataset` carries out when it is saved.

    Attributes:
        blocks: Which files go together.
        launcher: Runs a task a block.
        limits: What is refused.
        progress: Called with the stats record of each block as it ends.
    """

    blocks: tuple[Block, ...]
    launcher: Launcher
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    progress: Callable[[Mapping[str, Any]], None] | None = None


def plan_blocks(files: pd.DataFrame, block_bytes: int = BLOCK_BYTES) -> tuple[Block, ...]:
    """Cut a list of files into blocks of about equal bytes.

    Files are taken in the order of their size, and files of one size stay in one block (up to twice its
    bytes): exact copies have one size, so nearly all of them meet in one task. Small sets are cut into eight
    blocks, so that all cores have work; the plan depends on the files alone, not on the machine.

    Args:
        files: Columns `path`, `url`, `bytes`.
        block_bytes: Bytes of files that make a block.
    """
    target = min(block_bytes, max(int(files["bytes"].sum()) // 8, 2**20))
    blocks: list[Block] = []
    current: list[tuple[str, str]] = []
    filled, previous = 0, -1
    ordered = files.sort_values(["bytes", "path"])
    for path, url, size in zip(ordered["path"], ordered["url"], ordered["bytes"], strict=True):
        if filled >= target and (size != previous or filled >= 2 * target):
            blocks.append(Block(len(blocks), tuple(current)))
            current, filled = [], 0
        current.append((path, url))
        filled, previous = filled + size, size
    if current:
        blocks.append(Block(len(blocks), tuple(current)))
    return tuple(blocks)


def pack_block(block: Block, url: str, limits: DecodeLimits) -> dict[str, Any]:
    """Read, inspect and store the files of one block; runs in a task.

    Args:
        block: What to pack.
        url: The folder to write to.
        limits: What is refused.

    Returns:
        The stats record: name, files, stored scans, bytes read, refused files by reason, seconds.
    """
    import cv2

    cv2.setNumThreads(1)  # a task a core already uses them all
    filesystem, folder = open_filesystem(url)
    started = time.perf_counter()
    inspections: list[dict[str, Any]] = []
    stored: dict[str, bytes] = {}
    seen: set[str] = set()
    refused: dict[str, int] = {}
    total = 0
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _SCANS, compression="none") as writer:  # images are compressed already
        for path, file_url in block.files:
            content, inspection = _inspect_file(file_url, limits)
            total += len(content or b"")
            accepted = inspection.status == "accepted"
            inspections.append({"path": path, **asdict(inspection), "content": None if accepted else content})
            if not accepted:
                refused[inspection.reason] = refused.get(inspection.reason, 0) + 1
            elif inspection.scan_id not in seen:
                seen.add(inspection.scan_id)
                stored[inspection.scan_id] = content or b""
                if sum(map(len, stored.values())) >= ROW_GROUP_BYTES:
                    _write_rows(writer, stored)
        _write_rows(writer, stored)
    write_file(filesystem, f"{folder}/{block.name}", buffer.getvalue())
    _write_table(
        filesystem, f"{folder}/{INSPECTIONS}/{block.name}", pa.Table.from_pylist(inspections, _INSPECTIONS)
    )
    record = {
        "name": block.name,
        "files": len(block.files),
        "rows": len(seen),
        "bytes": total,
        "refused": refused,
        "seconds": time.perf_counter() - started,
    }
    write_file(filesystem, f"{folder}/_stats/{block.name}.json", json.dumps(record).encode())
    return record


def _inspect_file(url: str, limits: DecodeLimits) -> tuple[bytes | None, Inspection]:
    """Content and inspection of one file.

    A file that cannot be read is refused like one that cannot be decoded.
    """
    filesystem, path = open_filesystem(url)
    try:
        size = filesystem.size(path) or 0
        if size > limits.max_bytes:  # not worth its memory: its reason is all that is kept
            return None, Inspection("", "quarantined", "too_large", size)
        content = read_file(filesystem, path)
    except OSError:
        return None, Inspection("", "quarantined", "unreadable", 0)
    return content, inspect_scan(content, limits)


def _write_rows(writer: pq.ParquetWriter, stored: dict[str, bytes]) -> None:
    if stored:
        writer.write_table(
            pa.table([list(stored), list(stored.values())], schema=_SCANS), row_group_size=len(stored)
        )
        stored.clear()


def _write_table(filesystem: Any, path: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_file(filesystem, path, buffer.getvalue())


@dataclass(frozen=True)
class PackedScans:
    """A small picklable handle to packed scans and to what their inspection found.

    Attributes:
        url: The folder that holds the blocks.
        options: Options of its filesystem.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def stats(self) -> list[dict[str, Any]]:
        """The stats record of every block."""
        filesystem, path = open_filesystem(self.url, **self.options)
        return list(json.loads(read_file(filesystem, f"{path}/{COMPLETE}"))["blocks"])

    def inspections(self) -> pd.DataFrame:
        """A row per file, sorted by path: the fields of `imaging.inspect.Inspection`."""
        columns = [name for name in _INSPECTIONS.names if name != "content"]
        table: pd.DataFrame = pa.concat_tables(self._tables(INSPECTIONS, columns)).to_pandas()
        return table.sort_values("path", ignore_index=True)

    def refused_contents(self) -> dict[str, bytes | None]:
        """Content of every refused file by its path; None where it could not be read."""
        contents: dict[str, bytes | None] = {}
        for table in self._tables(INSPECTIONS, ["path", "status", "content"]):
            refused = table.filter(pc.field("status") == "quarantined")
            contents.update(zip(refused["path"].to_pylist(), refused["content"].to_pylist(), strict=True))
        return contents

    def contents(self, scan_ids: list[str]) -> dict[str, bytes]:
        """Content of some scans by their id; reads block after block, keeps only what was asked for."""
        wanted = pa.array(scan_ids, pa.string())
        contents: dict[str, bytes] = {}
        if scan_ids:
            for table in self._tables("", ["scan_id", "content"]):
                found = table.filter(pc.is_in(table["scan_id"], wanted))
                contents.update(zip(found["scan_id"].to_pylist(), found["content"].to_pylist(), strict=True))
        return contents

    def _tables(self, folder: str, columns: list[str]) -> Iterator[pa.Table]:
        filesystem, path = open_filesystem(self.url, **self.options)
        for record in self.stats():
            with filesystem.open(f"{path}/{folder}/{record['name']}".replace("//", "/"), "rb") as stream:
                yield pq.read_table(stream, columns=columns)


class PackedScansDataset(AbstractDataset[Packing, PackedScans]):
    """The packed scans: saving a `Packing` carries it out, loading gives a `PackedScans` handle.

    Example:
        ```yaml
        scans@packed:
          type: brain_mri.datasets.PackedScansDataset
          filepath: ${globals:storage}/02_intermediate/scans.parquet
        ```
    """

    def __init__(
        self,
        *,
        filepath: str,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = filepath
        self._options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def load(self) -> PackedScans:
        """Return the handle; nothing is read yet."""
        if not self._exists():
            raise DatasetError(
                f"{self._filepath} holds no complete scans. Run `kedro run --pipelines=ingestion` first."
            )
        return PackedScans(self._filepath, self._options)

    def save(self, data: Packing) -> None:
        """Pack the files, in parallel, and publish the result in one rename."""
        filesystem, path = open_filesystem(self._filepath, **self._options)
        with replace_folder(filesystem, path) as staging:
            url = filesystem.unstrip_protocol(staging)
            started = time.perf_counter()
            records = []
            for record in data.launcher.map(partial(pack_block, url=url, limits=data.limits), data.blocks):
                records.append(record)
                if data.progress:
                    data.progress(record)
            records.sort(key=lambda record: record["name"])
            drop_copies_between_blocks(filesystem, staging, records)
            write_file(
                filesystem, f"{staging}/{COMPLETE}", json.dumps({"blocks": records}, indent=1).encode()
            )
        files, seconds = sum(record["files"] for record in records), time.perf_counter() - started
        logger.info(
            "Packed %d files (%.1f MB) into %d blocks in %.1f s, %.0f files/s.",
            files,
            sum(record["bytes"] for record in records) / 1e6,
            len(records),
            seconds,
            files / seconds,
        )

    def preview(self) -> ImagePreview:
        """Thumbnails of some scans, for Kedro-Viz: read by pyarrow, drawn by Pillow."""
        inspections = self.load().inspections()
        accepted = inspections[inspections["status"] == "accepted"]
        sheet = Image.new("L", (8 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
        for place, content in enumerate(accepted["thumbnail"].iloc[:: max(1, len(accepted) // 16)].head(16)):
            row, column = divmod(place, 8)
            thumbnail = Image.frombytes("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), content)
            sheet.paste(thumbnail, (column * THUMBNAIL_SIDE, row * THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())

    def _exists(self) -> bool:
        filesystem, path = open_filesystem(self._filepath, **self._options)
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


class SparkScansDataset(PackedScansDataset):
    """The packed scans as a DataFrame (`scan_id`, `content`).

    Example:
        ```yaml
        scans@spark:
          type: brain_mri.datasets.SparkScansDataset
          filepath: ${globals:storage}/02_intermediate/scans.parquet
        ```
    """

    def load(self) -> DataFrame:  # type: ignore[override]  # one file set, two ways to look at it
        """Return the DataFrame; nothing is read yet."""
        from brain_mri.spark.session import get_session

        handle = super().load()
        filesystem, path = open_filesystem(handle.url, **handle.options)
        return (
            get_session()
            .read.schema("scan_id string, content binary")
            .parquet(filesystem.unstrip_protocol(path))
        )


def drop_copies_between_blocks(filesystem: Any, folder: str, records: list[dict[str, Any]]) -> None:
    """Keep each scan in the first block that holds it; rewrites only blocks that hold a later copy.

    The plan brings exact copies into one block, except where very many files have the same size.
    """
    seen: set[str] = set()
    for record in records:
        path = f"{folder}/{record['name']}"
        with filesystem.open(path, "rb") as stream:
            scan_ids = pq.read_table(stream, columns=["scan_id"])["scan_id"].to_pylist()
        if not seen.isdisjoint(scan_ids):
            with filesystem.open(path, "rb") as stream:
                table = pq.read_table(stream)
            kept = table.filter(pc.invert(pc.is_in(table["scan_id"], pa.array(sorted(seen), pa.string()))))
            buffer = io.BytesIO()
            pq.write_table(
                kept.combine_chunks(), buffer, compression="none", row_group_size=max(1, len(kept) // 8)
            )
            write_file(filesystem, path, buffer.getvalue())
            record["rows"] = len(kept)
        seen.update(scan_ids)
