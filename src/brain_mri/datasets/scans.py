"""Packed scans: the catalog entries that ingestion writes, and the handle that everything else reads."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image

from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.packing import (
    INSPECTION_SCHEMA,
    INSPECTIONS,
    Block,
    Packing,
    drop_copies_between_blocks,
    pack_block,
    plan_blocks,
)
from brain_mri.datasets.parts import literal_paths
from brain_mri.imaging.inspect import THUMBNAIL_SIDE
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, replace_folder, write_file

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
        filesystem, path = open_filesystem(self.url, **self.options)
        return list(json.loads(read_file(filesystem, f"{path}/{COMPLETE}"))["blocks"])

    def inspections(self) -> pd.DataFrame:
        """A row per file, sorted by path: the fields of `imaging.inspect.Inspection`."""
        columns = [name for name in INSPECTION_SCHEMA.names if name != "content"]
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

    def thumbnails(self, count: int) -> list[bytes]:
        """Thumbnails (64×64 grey bytes) of at most `count` accepted scans, taken from all over the set.

        Only the start of some blocks is read.
        """
        filesystem, path = open_filesystem(self.url, **self.options)
        records = self.stats()
        records = records[:: -(-len(records) // count)] if records else []
        found: list[bytes] = []
        for number, record in enumerate(records):
            share = (count - len(found)) // (len(records) - number)
            with filesystem.open(f"{path}/{INSPECTIONS}/{record['name']}", "rb") as stream:
                file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=2**16)
                rows = next(file.iter_batches(4 * count, columns=["status", "thumbnail"]), None)
            if rows is not None:
                found += rows.filter(pc.equal(rows["status"], "accepted"))["thumbnail"].to_pylist()[:share]
        return found

    def _tables(self, folder: str, columns: list[str]) -> Iterator[pa.Table]:
        filesystem, path = open_filesystem(self.url, **self.options)
        for record in self.stats():
            with filesystem.open(f"{path}/{folder}/{record['name']}".replace("//", "/"), "rb") as stream:
                yield pq.read_table(stream, columns=columns)


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
        """Pack the files, in parallel, and publish the result in one rename."""
        filesystem, path = self._open()
        with replace_folder(filesystem, path) as staging:
            url = filesystem.unstrip_protocol(staging)
            started = time.perf_counter()
            records = []
            task = partial(pack_block, url=url, limits=data.limits, options=self._options)
            for record in data.launcher.map(task, data.blocks):
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
        from brain_mri.spark.session import get_session

        handle = self._handle()
        filesystem, path = open_filesystem(handle.url, **handle.options)
        reader = literal_paths(get_session().read.schema("scan_id string, content binary"))
        return reader.parquet(filesystem.unstrip_protocol(path))
