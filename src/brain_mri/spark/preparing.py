"""What a Spark task does with a piece of the packed scans: it turns them into model inputs, a part a split.

The task reads its piece from the storage itself and writes its parts there, so neither scans nor pixels pass
through the JVM. Nothing heavier than what it needs is imported here: every Python worker pays for it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeAlias

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.imaging.resize import use_one_thread
from brain_mri.storage.files import open_filesystem, write_file
from brain_mri.storage.parquet import ROW_GROUP_BYTES, PartWriter, open_parquet, write_parquet
from brain_mri.storage.retry import retried

UNUSED = -1
"""Number of the split of a scan that no split has: a copy, or one that was refused after packing."""

# Ingestion has decided what is used; a second judgement here could only contradict it.
_NO_LIMITS = DecodeLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, min_side=1, min_contrast=0)
_FORMAT = 1
"""Part of every key. Raise it when the same scans are stored otherwise than before."""
# Three quarters of the bytes of uncompressed scans, at the cost of copying them; Spark reads it as well.
_COMPRESSION = "lz4"

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ScanPiece:
    """Some row groups of a block of packed scans: what one task prepares.

    Attributes:
        block: URL of the block.
        sha256: Of the block.
        row_groups: Numbers of the row groups.
        splits: int8 (rows,), the number of the split that each row belongs to, or `UNUSED`.
        labels: int64 (rows,), the label of each row.
    """

    block: str
    sha256: str
    row_groups: tuple[int, ...]
    splits: NDArray[np.int8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class PrepareTarget:
    """Where and how the parts of all pieces are written.

    Attributes:
        folders: URL of the folder of each split, by its name; a split's number is its place here.
        records: URL of the folder of the stats records.
        schema: Of the parts.
        options: What is done to a scan.
        storage: Options of the filesystems.
    """

    folders: Mapping[str, str]
    records: str
    schema: pa.Schema
    options: PrepareOptions
    storage: Mapping[str, Any] = field(default_factory=dict)

    def name_of(self, piece: ScanPiece) -> str:
        """What record and parts of a piece are called: equal names, equal parts.

        Everything that decides about their content goes into it, the version of the decoder too.
        """
        digest = hashlib.sha256()
        metadata = {name.decode(): value.decode() for name, value in (self.schema.metadata or {}).items()}
        ingredients = [_FORMAT, cv2.__version__, piece.sha256, piece.row_groups, asdict(self.options)]
        digest.update(json.dumps([*ingredients, metadata, list(self.folders)], sort_keys=True).encode())
        digest.update(piece.splits.tobytes() + piece.labels.tobytes())
        block = piece.block.rpartition("/")[2].removesuffix(".parquet").rpartition("-")[0]
        return f"{block}-{piece.row_groups[0]:03d}-{digest.hexdigest()[:12]}"


def prepare_piece(piece: ScanPiece, target: PrepareTarget) -> Record:
    """Decode, convert to grey and resize the scans of a piece, and write a part a split; runs in a task.

    An attempt that fails leaves nothing. Its memory is that of a row group of scans, and one of pixels a
    split.

    Returns:
        The stats record, which is also written, as the last thing, and marks the piece as complete: name,
        rows, seconds spent reading, preparing (`prepare`) and writing, started and ended (of the clock), host
        and process, and `splits`: for each that has scans here the part's name, rows, row_groups (rows of
        each), labels, smallest and largest pixel, bytes of pixels, stored_bytes and sha256 of the file.
    """
    use_one_thread()
    if not gc.get_freeze_count():
        gc.freeze()  # what is imported never becomes garbage; looking for it took three per cent of the time
    return retried(partial(_prepare, piece, target), f"preparing {target.name_of(piece)}")


def _prepare(piece: ScanPiece, target: PrepareTarget) -> Record:
    started, clock = time.time(), _Clock()
    name = target.name_of(piece)
    splits: dict[int, _SplitPart] = {}
    with ExitStack() as parts:
        for number, folder in enumerate(target.folders.values()):
            if (piece.splits == number).any():
                filesystem, path = open_filesystem(folder, **target.storage)
                writer = write_parquet(filesystem, f"{path}/{name}.parquet", target.schema, _COMPRESSION)
                part = _SplitPart(parts.enter_context(writer), target.schema, target.options.image_size)
                splits[number] = part
        position = 0
        for table in _row_groups(piece, target):
            clock.lap("read")
            for scan_id, content in zip(table["scan_id"], table["content"], strict=True):
                split = splits.get(int(piece.splits[position]))
                if split is not None:
                    pixels = prepare_scan(content.as_py(), target.options, _NO_LIMITS)
                    if split.add(scan_id.as_py(), int(piece.labels[position]), pixels):
                        clock.lap("prepare")
                        split.flush()
                        clock.lap("write")
                position += 1
            clock.lap("prepare")
        for split in splits.values():
            split.flush()
    clock.lap("write")
    names = list(target.folders)
    record = {
        "name": name,
        "rows": sum(split.rows for split in splits.values()),
        **clock.seconds,
        "started": started,
        "ended": time.time(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "splits": {names[number]: split.record(f"{name}.parquet") for number, split in splits.items()},
    }
    filesystem, path = open_filesystem(target.records, **target.storage)
    write_file(filesystem, f"{path}/{name}.json", json.dumps(record).encode())
    return record


def _row_groups(piece: ScanPiece, target: PrepareTarget) -> Iterator[pa.Table]:
    filesystem, path = open_filesystem(piece.block, **target.storage)
    with open_parquet(filesystem, path) as file:
        for number in piece.row_groups:
            yield file.read_row_group(number, columns=["scan_id", "content"], use_threads=False)


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "prepare": 0.0, "write": 0.0}
        self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] += now - self._last
        self._last = now


class _SplitPart:
    """The part of one split: collects the pixels of a row group in one array, and counts."""

    def __init__(self, part: PartWriter, schema: pa.Schema, image_size: int) -> None:
        self._part = part
        self._schema = schema
        room = max(ROW_GROUP_BYTES // image_size**2, 1)
        self._pixels = np.empty((room, image_size**2), np.uint8)
        self._scan_ids: list[str] = []
        self._labels: list[int] = []
        self._counts: Counter[int] = Counter()
        self._darkest, self._brightest = 255, 0

    @property
    def rows(self) -> int:
        return sum(self._part.row_groups)

    def add(self, scan_id: str, label: int, pixels: NDArray[np.uint8]) -> bool:
        """Take a scan; whether the row group is full now."""
        self._pixels[len(self._scan_ids)] = pixels.reshape(-1)
        self._scan_ids.append(scan_id)
        self._labels.append(label)
        return len(self._scan_ids) == len(self._pixels)

    def flush(self) -> None:
        """Write what was collected as a row group."""
        count = len(self._scan_ids)
        if not count:
            return
        pixels = self._pixels[:count]
        offsets = np.arange(count + 1, dtype=np.int32) * pixels.shape[1]
        column = pa.Array.from_buffers(
            pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(pixels.reshape(-1))]
        )
        columns = [pa.array(self._scan_ids), pa.array(self._labels, pa.int64()), column]
        self._part.add(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._part.flush()
        self._counts.update(self._labels)
        self._darkest = min(self._darkest, int(pixels.min()))
        self._brightest = max(self._brightest, int(pixels.max()))
        self._scan_ids, self._labels = [], []

    def record(self, name: str) -> Record:
        """What the stats record says of it, once it is written."""
        return {
            "name": name,
            "rows": self.rows,
            "row_groups": self._part.row_groups,
            "labels": {str(label): count for label, count in sorted(self._counts.items())},
            "minimum": self._darkest,
            "maximum": self._brightest,
            "bytes": self.rows * self._pixels.shape[1],
            "stored_bytes": self._part.bytes,
            "sha256": self._part.sha256,
        }
