"""Packed scans: the catalog entries that ingestion writes, and the handle that everything else reads."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image

from brain_mri.datasets.blocks import Block, plan_blocks
from brain_mri.datasets.copies import drop_copies_between_blocks
from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.packing import (
    INSPECTION_SCHEMA,
    INSPECTIONS,
    STATS,
    Packing,
    pack_block,
)
from brain_mri.datasets.thumbnails import ThumbnailStore
from brain_mri.imaging.inspect import THUMBNAIL_SIDE
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, write_file
from brain_mri.storage.parquet import open_parquet, read_parquet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

__all__ = ["Block", "PackedScans", "PackedScansDataset", "Packing", "SparkScansDataset", "plan_blocks"]


@dataclass(frozen=True)
class PackedScans:
    """A small picklable handle to packed scans and to what their inspection found.

    Attributes:
        url: The folder that holds the blocks.
        options: Options of its filesystem.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def stats(self) -> list[dict[str, Any]]:
        """The stats record of every block."""
        return list(self._mark()["blocks"])

    def inspections(self) -> pd.DataFrame:
        """A row per file that the last save packed, sorted by path.

        Returns:
            The fields of `imaging.inspect.Inspection` but the thumbnail.
        """
        mark = self._mark()
        added = set(mark["added"])
        light = [name for name in INSPECTION_SCHEMA.names if name not in ("content", "thumbnail")]
        records = [record for record in mark["blocks"] if record["name"] in added]
        tables = [self._table(INSPECTIONS, record, light) for record in records]
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame.sort_values("path", ignore_index=True)

    def contents(self, scan_ids: Collection[str]) -> dict[str, bytes]:
        """Content of some scans and refused files by their id; reads block after block.

        Files that could not be read have no content.
        """
        wanted, contents = set(scan_ids), dict[str, bytes]()
        for record in self.stats():
            missing = wanted & self.packed_ids(record)
            for folder in (INSPECTIONS, ""):
                if missing:
                    table = self._table(folder, record, ["scan_id", "content"]).drop_null()
                    found = table.filter(pc.is_in(table["scan_id"], pa.array(missing, pa.string())))
                    ids = found["scan_id"].to_pylist()
                    contents.update(zip(ids, found["content"].to_pylist(), strict=True))
                    missing -= set(ids)
        return contents

    def scan_ids(self, record: Mapping[str, Any]) -> list[str]:
        """The ids of a block's scans in their order there.

        Args:
            record: The block's stats record.
        """
        ids: list[str] = self._table("", record, ["scan_id"])["scan_id"].to_pylist()
        return ids

    def packed_ids(self, record: Mapping[str, Any]) -> set[str]:
        """Ids of all that a block was packed from and that is not known from elsewhere, refused files too.

        Args:
            record: The block's stats record.
        """
        table = self._table(INSPECTIONS, record, ["scan_id", "status"])
        return set(table.filter(pc.field("status") != "known")["scan_id"].to_pylist()) - {""}

    def thumbnail_store(self) -> ThumbnailStore:
        """The thumbnails of all accepted scans, to be looked up by id."""
        tables = (self._table(INSPECTIONS, record, ["scan_id", "thumbnail"]) for record in self.stats())
        return ThumbnailStore(tables)

    def thumbnails(self, count: int) -> list[bytes]:
        """Thumbnails (64×64 grey bytes) of at most `count` accepted scans, taken from all over the set.

        Only the start of some blocks is read.
        """
        filesystem, path = open_filesystem(self.url, **self.options)
        records = self.stats()
        records = records[:: -(-len(records) // count)] if records else []
        # What a block with few accepted files lacks, those after it give.
        records.sort(key=lambda record: record["files"] - record["known"] - sum(record["refused"].values()))
        found: list[bytes] = []
        for number, record in enumerate(records):
            share = (count - len(found)) // (len(records) - number)
            with open_parquet(filesystem, f"{path}/{INSPECTIONS}/{record['name']}", 2**16) as file:
                batches = file.iter_batches(4 * count, columns=["status", "thumbnail"], use_threads=False)
                rows = next(batches, None)
            if rows is not None:
                found += rows.filter(pc.equal(rows["status"], "accepted"))["thumbnail"].to_pylist()[:share]
        return found

    def _mark(self) -> dict[str, Any]:
        filesystem, path = open_filesystem(self.url, **self.options)
        return dict(json.loads(read_file(filesystem, f"{path}/{COMPLETE}")))

    def _table(self, folder: str, record: Mapping[str, Any], columns: list[str]) -> pa.Table:
        filesystem, path = open_filesystem(self.url, **self.options)
        return read_parquet(filesystem, f"{path}/{folder}/{record['name']}".replace("//", "/"), columns)


class PackedScansDataset(LocatedDataset[Packing, PackedScans]):
    """The packed scans: saving a `Packing` carries it out, loading gives a `PackedScans` handle.

    Example:
        ```yaml
        scans@packed:
          type: brain_mri.datasets.PackedScansDataset
          filepath: ${globals:storage}/02_intermediate/scans.parquet
        ```
    """

    def load(self) -> PackedScans:
        """Return the handle; nothing is read yet."""
        return self._handle()

    def _handle(self) -> PackedScans:
        if not self._exists():
            raise DatasetError(
                f"{self._filepath} holds no complete scans. Run `kedro run --pipelines=ingestion` first."
            )
        return PackedScans(self._filepath, self._options)

    def save(self, data: Packing) -> None:
        """Store what is missing, in parallel, and let the new set take the place of the old one.

        A block goes straight to its final place, under a name that says its content. So a save that was
        broken off is taken up where it ended, and whoever reads the old set meanwhile is not disturbed: a set
        is the blocks that its mark names, and the mark changes at once, when all blocks are there.

        Where the packing adds to earlier scans, the blocks that hold any of these stay in the set.

        Raises:
            DatasetError: Earlier scans that the packing adds to are not here any more; nothing is written.
        """
        filesystem, path = self._open()
        started = time.perf_counter()
        url = filesystem.unstrip_protocol(path)
        earlier = self._blocks_of(data.earlier)
        task = partial(pack_block, url=url, limits=data.limits, options=self._options)
        added = list(data.progress(data.launcher.map(task, data.blocks)))
        names = {record["name"] for record in added}
        kept = [record for record in earlier if record["name"] not in names]
        records = sorted(kept + added, key=lambda record: str(record["name"]))
        drop_copies_between_blocks(filesystem, path, records)
        names = {record["name"] for record in records} - {record["name"] for record in kept}
        content = json.dumps({"added": sorted(names), "blocks": records}, indent=1).encode()
        write_file(filesystem, f"{path}/{COMPLETE}", content)
        _remove_unnamed(filesystem, path, records)
        _report(added, time.perf_counter() - started)

    def _blocks_of(self, scan_ids: frozenset[str] | None) -> list[dict[str, Any]]:
        """Records of the stored blocks that hold one of some scans, or refused files with these ids."""
        if not scan_ids:
            return []
        found, missing = [], set(scan_ids)
        if self._exists():
            scans = self._handle()
            for record in scans.stats():
                ids = scans.packed_ids(record)
                missing -= ids
                if not scan_ids.isdisjoint(ids):
                    found.append(record)
        if missing:
            raise DatasetError(
                f"{self._filepath} lacks {len(missing)} of the {len(scan_ids)} files that the manifest "
                "names, so nothing can be added to them: a run on another source was broken off, or files "
                "were removed. Run ingestion without ingestion.append on a source that holds all files."
            )
        return found

    def preview(self) -> ImagePreview:
        """Thumbnails of some scans, for Kedro-Viz: read by pyarrow, drawn by Pillow."""
        sheet = Image.new("L", (8 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
        for place, content in enumerate(self._handle().thumbnails(16)):
            row, column = divmod(place, 8)
            thumbnail = Image.frombytes("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), content)
            sheet.paste(thumbnail, (column * THUMBNAIL_SIDE, row * THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))


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
        from brain_mri.spark.reading import read_parts

        filesystem, path = self._open()
        names = [record["name"] for record in self._handle().stats()]
        return read_parts(filesystem, path, names, "scan_id string, content binary")


def _remove_unnamed(filesystem: Any, folder: str, records: list[dict[str, Any]]) -> None:
    """Remove blocks that the mark no longer names, and what broken-off saves left behind.

    Tools that know nothing of the mark read every block in the folder.
    """
    named = {COMPLETE}
    for name in (record["name"] for record in records):
        named |= {name, f"{INSPECTIONS}/{name}", f"{STATS}/{name}.json"}
    for path in filesystem.find(folder):
        if path[len(folder) + 1 :] not in named:
            remove(filesystem, path)


def _report(records: list[dict[str, Any]], seconds: float) -> None:
    """Say what was there, what was sent, and how fast."""
    sent = [record for record in records if record["sent"]]
    damaged = [record["name"] for record in sent if record["damaged"]]
    if damaged:
        logger.warning("Stored blocks that were not as once written were sent anew: %s.", ", ".join(damaged))
    files, size = (sum(record[name] for record in records) for name in ("files", "bytes"))
    files_sent, bytes_sent = (sum(record[name] for record in sent) for name in ("files", "sent"))
    logger.info(
        "Packed scans: %d files (%.1f MB) in %d blocks. Already there: %d files in %d blocks; sent: %d files "
        "in %d blocks (%.1f MB), all verified by sha256. %.1f s, %.0f files/s, %.1f MB/s.",
        files,
        size / 1e6,
        len(records),
        files - files_sent,
        len(records) - len(sent),
        files_sent,
        len(sent),
        bytes_sent / 1e6,
        seconds,
        files / seconds,
        size / 1e6 / seconds,
    )
