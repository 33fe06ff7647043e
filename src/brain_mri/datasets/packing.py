"""Packing scans into parquet blocks: what the task of a block does, and what is stored already.

A task works out from the content of its files what its block is called, and looks whether that block is
stored. If not, it inspects the files and writes `scan_id` and content of what can be used to the block, and
what it found out about every file (with the content of what was refused) to a table beside it, in a folder
that Spark and pyarrow pass over. Exact copies are stored once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from brain_mri.datasets.blocks import Block, block_key
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.inspect import Inspection, inspect_scan
from brain_mri.imaging.resize import use_one_thread
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage import parquet
from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem, read_file, write_file
from brain_mri.storage.object_stores import in_sentences, is_object_store
from brain_mri.storage.parquet import write_parquet
from brain_mri.storage.retry import retried
from brain_mri.storage.verification import file_sha256

INSPECTIONS = "_inspections"
STATS = "_stats"

SCANS_SCHEMA = pa.schema([("scan_id", pa.string()), ("content", pa.binary())])
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
"""Path, the fields of `imaging.inspect.Inspection`, and the content of what was refused.

Status `known` is that of a file whose content was packed before; nothing but its path, id and length stands
here.
"""

_ROWS_AT_ONCE = 64  # of inspections: one by one they cost as much as their hashes
_KEPT_ROW_GROUPS = (
    8  # bytes of files that a task holds between the look at them and their packing: those of a block
)


class SourceChangedError(OSError):
    """A file of the source was written to while it was read."""


@dataclass(frozen=True)
class Packing:
    """A plan to pack files, and what runs it.

    It is a lazy value that `PackedScansDataset` carries out when it is saved.

    Attributes:
        blocks: Which files go together.
        launcher: Runs a task a block.
        limits: What is refused.
        earlier: Ids of scans that were packed before; blocks that hold one of them stay. None starts afresh.
        progress: What the stats records pass through as blocks end.
    """

    blocks: tuple[Block, ...]
    launcher: Launcher
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    earlier: frozenset[str] | None = None
    progress: WithProgress = iter


def pack_block(
    block: Block, url: str, limits: DecodeLimits, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Store the block of some files, unless it is stored already; runs in a task.

    Its memory is that of its files' bytes, at most eight row groups of them, of three more row groups, and of
    one decoded file. A file is read once, or twice where those before it have taken the room.

    Args:
        block: What to pack.
        url: The folder to write to.
        limits: What is refused.
        options: Options of the folder's filesystem.

    Returns:
        The stats record: name, key, files, rows (stored scans), row_groups (rows of each), known (files that
        were packed before), bytes (read), refused (files by reason), dropped (copies that other blocks hold),
        sha256 of the block and of its inspections, stored_bytes, sent (bytes of both; 0 where they were there
        already), damaged (whether a stored one was not what it should be), seconds. It is also written beside
        the block as the last thing, and marks it as complete.

    Raises:
        SourceChangedError: A file was written to meanwhile.
    """
    filesystem, folder = open_filesystem(url, **(options or {}))
    started = time.perf_counter()
    files = _Files(block, limits)
    # A stream cannot be written twice, so after a fault on the way to the storage the block is made again.
    record = retried(partial(_store_block, files, filesystem, folder), f"storing {files.name}")
    return {**record, "seconds": time.perf_counter() - started}


class _Files:
    """The files of a block: read to know them, and again, as far as memory did not hold them, to pack.

    Attributes:
        limits: What is refused.
        identities: Path and sha256 of every file.
        known: Ids of scans that were packed before, among them all that are files of this block.
        key: Of their block.
        name: Likewise.
    """

    def __init__(self, block: Block, limits: DecodeLimits) -> None:
        self.limits = limits
        self.identities: list[tuple[str, str]] = []
        self._urls = dict(block.files)
        self._kept: dict[str, bytes | Inspection] = {}
        room = _KEPT_ROW_GROUPS * parquet.ROW_GROUP_BYTES
        for path, url in block.files:
            content = read_source(url, limits)
            self.identities.append((path, _identity(content)))
            size = len(content) if isinstance(content, bytes) else 0
            if size <= room:
                self._kept[path] = content
                room -= size
        self.known = block.known
        self.key = block_key(self.identities, limits, block.known)
        self.name = block.name(self.key)

    def content(self, path: str, identity: str) -> bytes | Inspection:
        """Content of a file, or the inspection that refuses it without.

        Raises:
            SourceChangedError: It is another content than before.
        """
        content = self._kept.pop(path, None)
        if content is not None:
            return content
        content = read_source(self._urls[path], self.limits)
        if _identity(content) != identity:
            raise SourceChangedError(
                f"{self._urls[path]} changed while it was read. Let what writes there end, and run again."
            )
        return content


def read_source(url: str, limits: DecodeLimits) -> bytes | Inspection:
    """Content of one file of a source; the inspection where it is too large, or cannot be read.

    A file that cannot be read is refused like one that cannot be decoded; in an object store only one that is
    not there, since nothing tells a forbidden file from credentials that have expired.

    Raises:
        StorageError: It is not the file, but the storage that holds it, that cannot be used: all other files
            would be refused as well.
    """
    filesystem, path = open_filesystem(url)
    faults = in_sentences(url, "read") if is_object_store(filesystem) else nullcontext()
    try:
        with faults:
            return _read_source(filesystem, path, limits)
    except StorageError:
        raise
    except OSError:
        return Inspection("", "quarantined", "unreadable", 0)


def _read_source(filesystem: Any, path: str, limits: DecodeLimits) -> bytes | Inspection:
    size = filesystem.size(path) or 0
    if size > limits.max_bytes:  # not worth its memory: its reason is all that is kept
        return Inspection("", "quarantined", "too_large", size)
    return read_file(filesystem, path)


def _identity(content: bytes | Inspection) -> str:
    if isinstance(content, Inspection):
        return f"{content.reason} {content.bytes}"
    return hashlib.sha256(content).hexdigest()


def _store_block(files: _Files, filesystem: Any, folder: str) -> dict[str, Any]:
    """The record of a block: of the one that is there, or of the one that is now written."""
    stored, damaged = _find_stored(filesystem, folder, files)
    if stored is not None:
        return stored | {"sent": 0, "damaged": False}
    started = time.perf_counter()
    record = _write_block(files, filesystem, folder) | {"damaged": damaged}
    record["seconds"] = time.perf_counter() - started
    write_file(filesystem, f"{folder}/{STATS}/{files.name}.json", json.dumps(record).encode())
    return record


def _find_stored(filesystem: Any, folder: str, files: _Files) -> tuple[dict[str, Any] | None, bool]:
    """The record of a block that is stored as it should be; else whether a damaged one is there."""
    try:
        record = json.loads(read_file(filesystem, f"{folder}/{STATS}/{files.name}.json"))
        whole = (record["key"], record["sha256"], record["inspections_sha256"]) == (
            files.key,
            file_sha256(filesystem, f"{folder}/{files.name}"),
            file_sha256(filesystem, f"{folder}/{INSPECTIONS}/{files.name}"),
        )
    except FileNotFoundError:
        return None, False
    except (OSError, ValueError, KeyError):  # what is damaged cannot always be read
        return None, True
    return (record, False) if whole else (None, True)


def _write_block(files: _Files, filesystem: Any, folder: str) -> dict[str, Any]:
    """Inspect the files, write the block and its inspections, and count."""
    use_one_thread()
    seen: set[str] = set()
    refused: Counter[str] = Counter()
    known = total = 0
    with (
        # Images are compressed already.
        write_parquet(filesystem, f"{folder}/{files.name}", SCANS_SCHEMA, "none") as scans,
        write_parquet(
            filesystem, f"{folder}/{INSPECTIONS}/{files.name}", INSPECTION_SCHEMA, "zstd"
        ) as inspections,
    ):
        rows = _Rows(inspections)
        for path, identity in files.identities:
            content = files.content(path, identity)
            refused_content = None
            if isinstance(content, Inspection):
                inspection = content
            elif identity in files.known:
                inspection = Inspection(identity, "known", "", len(content))
                known += 1
            else:
                inspection = inspect_scan(content, files.limits)
                total += len(content)
                if inspection.status == "quarantined":
                    refused_content = content
                elif inspection.scan_id not in seen:
                    seen.add(inspection.scan_id)
                    row = pa.RecordBatch.from_arrays([[inspection.scan_id], [content]], schema=SCANS_SCHEMA)
                    scans.add(row)
            rows.add({"path": path, **vars(inspection), "content": refused_content})
            if inspection.status == "quarantined":
                refused[inspection.reason] += 1
        rows.flush()
    return {
        "name": files.name,
        "key": files.key,
        "files": len(files.identities),
        "rows": len(seen),
        "row_groups": scans.row_groups,
        "known": known,
        "bytes": total,
        "refused": dict(refused),
        "dropped": 0,
        "sha256": scans.sha256,
        "inspections_sha256": inspections.sha256,
        "stored_bytes": scans.bytes,
        "sent": scans.bytes + inspections.bytes,
    }


class _Rows:
    """Hands inspections on in batches."""

    def __init__(self, part: parquet.PartWriter) -> None:
        self._part = part
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += len(row["content"] or b"")
        if len(self._rows) >= _ROWS_AT_ONCE or self._bytes >= parquet.ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        self._part.add(pa.RecordBatch.from_pylist(self._rows, INSPECTION_SCHEMA))
        self._rows, self._bytes = [], 0
