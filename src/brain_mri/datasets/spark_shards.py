"""Model inputs as Spark writes and reads them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from kedro_datasets.spark import SparkDatasetV2

from brain_mri.datasets.shards import ShardSetDataset
from brain_mri.spark.batches import Batches, MappedBatches, timed
from brain_mri.spark.session import get_session
from brain_mri.storage.files import (
    COMPLETE,
    open_filesystem,
    rename,
    replace_folder,
    temporary_name,
    write_file,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ROW_GROUP_BYTES = 16 * 2**20
"""Small enough to shuffle by row groups, large enough that reading one is a sequential read."""


class SparkShardsDataset(SparkDatasetV2):  # type: ignore[misc]  # kedro-datasets ships no types
    """Model inputs written by Spark tasks, a part each, and loaded as a DataFrame.

    Differs from kedro-datasets' `SparkDatasetV2` in three points. Tasks write their own part (beside,
    renamed) and its stats record as the last thing, so pixels never travel back into the JVM. The whole set
    takes the place of the old one in one rename. It exists only when its completion mark does.

    Example:
        ```yaml
        model_inputs_train@spark:
          type: brain_mri.datasets.SparkShardsDataset
          filepath: ${globals:storage}/05_model_input/model_inputs_train.parquet
        ```
    """

    def _load(self) -> DataFrame:
        """Return the set as a DataFrame (`scan_id`, `label`, `pixels`)."""
        session = get_session()
        return session.read.parquet(self._spark_path)

    def _save(self, data: MappedBatches) -> None:
        """Run the tasks and publish what they wrote."""
        if not isinstance(data, MappedBatches):
            raise DatasetError(
                f"Expected MappedBatches (a DataFrame and a batch function), got {type(data).__name__}."
            )
        filesystem, path = open_filesystem(self._original_filepath)
        with replace_folder(filesystem, path) as staging:
            write = partial(
                write_part,
                function=data.function,
                schema=data.schema,
                url=filesystem.unstrip_protocol(staging),
            )
            records = [
                json.loads(row.record) for row in data.frame.mapInArrow(write, "record string").collect()
            ]
            metadata = {name.decode(): value.decode() for name, value in (data.schema.metadata or {}).items()}
            summary = {
                "image_size": int(metadata["height"]),
                "classes": json.loads(metadata["classes"]),
                "parts": sorted(records, key=lambda record: record["name"]),
            }
            write_file(filesystem, f"{staging}/{COMPLETE}", json.dumps(summary, indent=1).encode())

    def preview(self) -> ImagePreview:
        """Sixteen scans in a grid, for Kedro-Viz; starts no JVM."""
        return ShardSetDataset(filepath=self._original_filepath).preview()

    def _exists(self) -> bool:
        filesystem, path = open_filesystem(self._original_filepath)
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))


def write_part(batches: Batches, function: Any, schema: pa.Schema, url: str) -> Iterator[pa.RecordBatch]:
    """Map the batches of one task and write the result as one parquet part; runs in a task.

    A retried or speculative copy of the task writes the same name with the same content, so whichever is
    renamed last leaves the same part.

    Yields:
        One row with the stats record: name, rows, labels, smallest and largest pixel, bytes, and seconds
        spent waiting for input and preparing (`prepare`) and writing (`write`).
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = context.partitionId() if context else 0
    name = f"part-{partition:05d}.parquet"
    filesystem, folder = open_filesystem(url)
    temporary = temporary_name(f"{folder}/{name}")
    record: dict[str, Any] = {"name": name, "rows": 0, "bytes": 0, "minimum": 255, "maximum": 0, "write": 0.0}
    record["started"] = time.time()
    labels: Counter[int] = Counter()
    pending: list[pa.RecordBatch] = []
    prepare = 0.0

    with (
        filesystem.open(temporary, "wb") as stream,
        pq.ParquetWriter(stream, schema, compression="snappy") as writer,
    ):

        def flush() -> None:
            started = time.perf_counter()
            table = pa.Table.from_batches(pending, schema).combine_chunks()
            writer.write_table(table, row_group_size=len(table))
            pending.clear()
            record["write"] += time.perf_counter() - started

        for batch, seconds in timed(function(batches)):
            prepare += seconds
            pixels = np.frombuffer(b"".join(value.as_buffer() for value in batch["pixels"]), np.uint8)
            labels.update(batch["label"].to_pylist())
            record["rows"] += len(batch)
            record["bytes"] += pixels.size
            record["minimum"] = min(record["minimum"], int(pixels.min(initial=255)))
            record["maximum"] = max(record["maximum"], int(pixels.max(initial=0)))
            pending.append(batch)
            if sum(part.nbytes for part in pending) >= ROW_GROUP_BYTES:
                flush()
        if pending:
            flush()
    if record["rows"]:
        rename(filesystem, temporary, f"{folder}/{name}")
    else:
        filesystem.rm(temporary)
    record["prepare"], record["ended"] = prepare, time.time()
    record["labels"] = {str(label): count for label, count in sorted(labels.items())}
    content = json.dumps(record)
    write_file(filesystem, f"{folder}/_stats/{name}.json", content.encode())
    yield pa.RecordBatch.from_pydict({"record": [content]})
