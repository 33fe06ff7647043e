"""Preparing scans: the plan that says which task prepares what, and the catalog entry that carries it out."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from kedro.io import DatasetError

from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.scans import PackedScans
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.spark.preparing import UNUSED, PrepareTarget, Record, ScanPiece, prepare_piece
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, write_file

logger = logging.getLogger(__name__)

_NOT_OURS = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a record or a mark raises that is damaged, or that something else wrote."""

PIECE_BYTES = 32 * 2**20
"""Bytes of packed scans that a task prepares, at most: a second's work, several hundred of its own."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """A plan to turn packed scans into model inputs, and what runs it.

    It is a lazy value that `PreparedPartsDataset` carries out when it is saved.

    Attributes:
        scans: The packed scans.
        rows: Which of them are used: `scan_id`, `split` (name), `label` (index in the class order).
        splits: Names of the splits.
        options: What is done to a scan.
        schema: Of the model inputs.
        launcher: Runs a task a piece.
        progress: What the stats records pass through as pieces end.
    """

    scans: PackedScans
    rows: pd.DataFrame
    splits: tuple[str, ...]
    options: PrepareOptions
    schema: pa.Schema
    launcher: Launcher
    progress: WithProgress = iter


@dataclass(frozen=True)
class PreparedParts:
    """What tasks have prepared: the stats record of every piece.

    Attributes:
        records: As `spark.preparing.prepare_piece` returns them.
        options: What was done to a scan.
        classes: Class names in the order of the labels.
    """

    records: tuple[Record, ...]
    options: PrepareOptions
    classes: tuple[str, ...]

    def summary(self, split: str) -> dict[str, Any]:
        """What the completion mark of a split's set says: options, classes, parts, and what it belongs to.

        `preparation` is the same for the sets of all splits and no others: sets that were published by
        different runs may share scans.
        """
        parts = [record["splits"][split] for record in self.records if split in record["splits"]]
        names = sorted(record["name"] for record in self.records)
        return {
            "image_size": self.options.image_size,
            "options": asdict(self.options),
            "classes": list(self.classes),
            "preparation": hashlib.sha256("\n".join(names).encode()).hexdigest(),
            "parts": parts,
        }


def plan_pieces(scans: PackedScans, rows: pd.DataFrame, splits: Sequence[str]) -> Iterator[ScanPiece]:
    """Cut packed scans into pieces of at most `PIECE_BYTES`, by bytes and not by the number of cores.

    So every machine makes the same parts, and a run can be resumed on another one. Only the ids of the scans
    are read. A piece without a scan that is used is left out.

    Args:
        scans: The packed scans.
        rows: `scan_id`, `split`, `label` of those that are used.
        splits: Names of the splits, in the order of their numbers.
    """
    index = pd.Index(rows["scan_id"])
    numbers = rows["split"].map(list(splits).index).to_numpy(np.int8)
    labels = rows["label"].to_numpy(np.int64)
    for record in scans.stats():
        groups = record["row_groups"]
        in_piece = max(1, PIECE_BYTES * len(groups) // max(record["stored_bytes"], 1))
        ids = iter(scans.scan_ids(record))
        for first in range(0, len(groups), in_piece):
            chosen = range(first, min(first + in_piece, len(groups)))
            found = index.get_indexer(pd.Index([next(ids) for _ in range(sum(groups[n] for n in chosen))]))
            used = np.where(found >= 0, numbers[found], UNUSED).astype(np.int8)
            if (used != UNUSED).any():
                url = f"{scans.url}/{record['name']}"
                yield ScanPiece(
                    url, record["sha256"], tuple(chosen), used, np.where(found >= 0, labels[found], 0)
                )


class PreparedPartsDataset(LocatedDataset[Preparation, PreparedParts]):
    """The prepared parts of all splits: saving a `Preparation` carries it out, loading gives the records.

    Each task prepares a piece of the packed scans once, for all splits, and writes a part into the folder of
    each. Parts are named by all that decides about their content, so what an earlier or broken-off run has
    prepared is found and not prepared again. Sets of model inputs are what their own marks name (see
    `SparkShardsDataset`).

    Args:
        filepath: Folder of the stats records.
        parts: Folder of a split's parts, with `{split}` for its name.

    Example:
        ```yaml
        prepared_parts:
          type: brain_mri.datasets.PreparedPartsDataset
          filepath: ${globals:storage}/05_model_input/prepared_parts
          parts: ${globals:storage}/05_model_input/model_inputs_{split}.parquet
        ```
    """

    def __init__(self, *, parts: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._parts = parts

    def load(self) -> PreparedParts:
        """Read the records."""
        try:
            return self._read()
        except FileNotFoundError as error:
            raise DatasetError(
                f"{self._filepath} holds no complete preparation. Run `kedro run --pipelines=preprocessing` "
                "first."
            ) from error

    def _read(self) -> PreparedParts:
        filesystem, path = self._open()
        mark = json.loads(read_file(filesystem, f"{path}/{COMPLETE}"))
        return PreparedParts(
            tuple(mark["records"]), PrepareOptions(**mark["options"]), tuple(mark["classes"])
        )

    def save(self, data: Preparation) -> None:
        """Prepare what is not prepared yet, in parallel, and record the whole."""
        filesystem, path = self._open()
        started = time.perf_counter()
        target = PrepareTarget(
            {split: self._parts.replace("{split}", split) for split in data.splits},
            filesystem.unstrip_protocol(path),
            data.schema,
            data.options,
            self._options,
        )
        pieces = {target.name_of(piece): piece for piece in plan_pieces(data.scans, data.rows, data.splits)}
        records = {record["name"]: record for record in self._prepared(target) if record["name"] in pieces}
        missing = [piece for name, piece in pieces.items() if name not in records]
        # Large ones first: at the end no core waits long for the last one of another.
        missing.sort(key=lambda piece: int((piece.splits != UNUSED).sum()), reverse=True)
        there = sum(record["rows"] for record in records.values())
        prepared = data.launcher.map(partial(prepare_piece, target=target), missing)
        records = {record["name"]: record for record in data.progress(chain(records.values(), prepared))}
        metadata = {name.decode(): value.decode() for name, value in data.schema.metadata.items()}
        mark = {
            "options": asdict(data.options),
            "classes": json.loads(metadata["classes"]),
            "records": [records[name] for name in sorted(records)],
        }
        write_file(filesystem, f"{path}/{COMPLETE}", json.dumps(mark, indent=1).encode())
        self._remove_unnamed(set(records))
        fresh, seconds = (
            sum(record["rows"] for record in records.values()) - there,
            time.perf_counter() - started,
        )
        logger.info(
            "Model inputs: %d images in %d pieces. Already there: %d images in %d pieces; prepared and "
            "verified: %d images in %d pieces. %.1f s, %.0f images/s.",
            there + fresh, len(pieces), there, len(pieces) - len(missing), fresh, len(missing), seconds,
            fresh / seconds,
        )  # fmt: skip

    def _prepared(self, target: PrepareTarget) -> Iterator[Record]:
        """Records of pieces whose parts are all there with the size that they were written with."""
        filesystem, path = self._open()
        stored = {split: _sizes(folder, target.storage) for split, folder in target.folders.items()}
        for name in _sizes(target.records, target.storage):
            if not name.endswith(".json"):
                continue
            try:
                record = json.loads(read_file(filesystem, f"{path}/{name}"))
                if record["name"] == name.removesuffix(".json") and _is_stored(record, stored):
                    yield record
            except _NOT_OURS:
                logger.warning("The record %s/%s cannot be used; its scans are prepared again.", path, name)

    def _remove_unnamed(self, names: set[str]) -> None:
        filesystem, path = self._open()
        for name in _sizes(filesystem.unstrip_protocol(path), self._options):
            if name != COMPLETE and name.removesuffix(".json") not in names:
                remove(filesystem, f"{path}/{name}")

    def _exists(self) -> bool:
        """Whether all is recorded and every part is there; what was taken away must be prepared again."""
        filesystem, path = self._open()
        if not filesystem.exists(f"{path}/{COMPLETE}"):
            return False
        try:
            records = self._read().records
            splits = {split for record in records for split in record["splits"]}
            stored = {split: _sizes(self._parts.replace("{split}", split), self._options) for split in splits}
            return all(_is_stored(record, stored) for record in records)
        except _NOT_OURS:
            return False


def _is_stored(record: Record, stored: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether every part of a piece is there with the size that it was written with.

    Args:
        record: Of the piece.
        stored: Bytes of every file by its name, for each split.
    """
    parts = record["splits"].items()
    return bool(parts) and all(
        stored[split].get(part["name"]) == part["stored_bytes"] for split, part in parts
    )


def _sizes(url: str, options: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of every file in a folder by its name; empty where there is no folder."""
    filesystem, path = open_filesystem(url, **options)
    try:
        entries = filesystem.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    return {str(entry["name"]).rstrip("/").rpartition("/")[2]: int(entry["size"] or 0) for entry in entries}
