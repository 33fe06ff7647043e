"""Packing scans into parquet blocks: the plan, and what the task of a block does.

A task reads each of its files once, inspects it, and writes `scan_id` and content of what can be used to the
block, and what it found out about every file (with the content of what was refused) to a table beside it, in
a folder that Spark and pyarrow pass over. Exact copies are stored once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brain_mri.datasets.parts import write_parquet
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.inspect import Inspection, inspect_scan
from brain_mri.spark.launchers import Launcher
from brain_mri.storage.files import open_filesystem, read_file, replace_file, write_file

BLOCK_BYTES = 128 * 2**20
INSPECTIONS = "_inspections"

_SCANS = pa.schema([("scan_id", pa.string()), ("content", pa.binary())])
INSPECTION_SCHEMA = pa.schema(
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

    Files of one size stay in one block (up to twice its bytes): exact copies have one size, so nearly all
    of them meet in one task. Otherwise the order is drawn from sizes and paths: classes differ in both, and
    every block, and so every row group that training reads, should hold all of them. Small sets are cut into
    eight blocks, so that all cores have work. The plan depends on the files alone, not on the machine.

    Args:
        files: Columns `path`, `url`, `bytes`.
        block_bytes: Bytes of files that make a block.
    """
    target = min(block_bytes, max(int(files["bytes"].sum()) // 8, 2**20))
    blocks: list[Block] = []
    current: list[tuple[str, str]] = []
    filled, previous = 0, -1
    drawn = files.assign(by_size=files["bytes"].map(_draw), by_path=files["path"].map(_draw))
    ordered = drawn.sort_values(["by_size", "by_path"])
    for path, url, size in zip(ordered["path"], ordered["url"], ordered["bytes"], strict=True):
        if filled >= target and (size != previous or filled >= 2 * target):
            blocks.append(Block(len(blocks), tuple(current)))
            current, filled = [], 0
        current.append((path, url))
        filled, previous = filled + size, size
    if current:
        blocks.append(Block(len(blocks), tuple(current)))
    return tuple(blocks)


def _draw(value: object) -> bytes:
    """A place in an order that has nothing to do with the value."""
    return hashlib.sha256(str(value).encode()).digest()


def pack_block(
    block: Block, url: str, limits: DecodeLimits, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read, inspect and store the files of one block; runs in a task.

    Its memory is that of a row group of scans, one of inspections, and one file.

    Args:
        block: What to pack.
        url: The folder to write to.
        limits: What is refused.
        options: Options of the folder's filesystem.

    Returns:
        The stats record: name, files, stored scans, bytes read, refused files by reason, seconds. It is also
        written, as the last thing.
    """
    import cv2

    cv2.setNumThreads(1)  # a task a core already uses them all
    filesystem, folder = open_filesystem(url, **(options or {}))
    started = time.perf_counter()
    seen: set[str] = set()
    refused: Counter[str] = Counter()
    total = 0
    with (
        # Images are compressed already.
        write_parquet(filesystem, f"{folder}/{block.name}", _SCANS, "none") as scans,
        write_parquet(
            filesystem, f"{folder}/{INSPECTIONS}/{block.name}", INSPECTION_SCHEMA, "zstd"
        ) as inspections,
    ):
        for path, file_url in block.files:
            content, inspection = _inspect_file(file_url, limits)
            total += len(content or b"")
            accepted = inspection.status == "accepted"
            row = {"path": path, **asdict(inspection), "content": None if accepted else content}
            inspections.add(pa.RecordBatch.from_pylist([row], INSPECTION_SCHEMA))
            if not accepted:
                refused[inspection.reason] += 1
            elif inspection.scan_id not in seen:
                seen.add(inspection.scan_id)
                scans.add(pa.RecordBatch.from_arrays([[inspection.scan_id], [content]], schema=_SCANS))
    record = {
        "name": block.name,
        "files": len(block.files),
        "rows": len(seen),
        "bytes": total,
        "refused": dict(refused),
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
            with replace_file(filesystem, path) as stream:
                pq.write_table(
                    kept.combine_chunks(), stream, compression="none", row_group_size=max(1, len(kept) // 8)
                )
            record["rows"] = len(kept)
        seen.update(scan_ids)
