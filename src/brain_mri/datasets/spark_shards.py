"""Model inputs as Spark writes and reads them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from kedro_datasets.spark import SparkDatasetV2

from brain_mri.datasets.parts import literal_paths, write_parquet
from brain_mri.datasets.shards import ShardSetDataset, bytes_of
from brain_mri.spark.batches import Batches, MappedBatches, timed
from brain_mri.spark.failures import explained
from brain_mri.spark.session import get_session
from brain_mri.storage.files import COMPLETE, open_filesystem, replace_folder, write_file

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SparkShardsDataset(SparkDatasetV2):  # type: ignore[misc]  # kedro-datasets ships no types
    """Model inputs written by Spark tasks, a part each, and loaded as a DataFrame.

    Differs from kedro-datasets' `SparkDatasetV2` in three points. Tasks write their own part (beside,
    renamed) and its stats record as the last thing, so pixels never travel back into the JVM. The whole set
    takes the place of the old one in one rename. It exists only when its completion mark does.

    Args:
        filepath: Local path or fsspec URL.
        credentials: Options of the filesystem through which tasks write, that must not stand in the catalog.
            Spark itself reads, and has settings of its own (`spark.hadoop.…` in spark.yml).
        fs_args: Further options of that filesystem.
        metadata: Ignored here; Kedro-Viz reads its layer from it.

    Example:
        ```yaml
        model_inputs_train@spark:
          type: brain_mri.datasets.SparkShardsDataset
          filepath: ${globals:storage}/05_model_input/model_inputs_train.parquet
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
        self._options = {**(fs_args or {}), **(credentials or {})}
        super().__init__(filepath=filepath, credentials=self._options, metadata=metadata)

    def _load(self) -> DataFrame:
        """Return the set as a DataFrame (`scan_id`, `label`, `pixels`)."""
        return literal_paths(get_session().read).parquet(self._spark_path)

    def _save(self, data: MappedBatches) -> None:
        """Run the tasks and publish what they wrote."""
        if not isinstance(data, MappedBatches):
            raise DatasetError(
                f"Expected MappedBatches (a DataFrame and a batch function), got {type(data).__name__}."
            )
        filesystem, path = open_filesystem(self._original_filepath, **self._options)
        with replace_folder(filesystem, path) as staging:
            write = partial(
                write_part,
                function=data.function,
                schema=data.schema,
                url=filesystem.unstrip_protocol(staging),
                options=self._options,
            )
            with explained():
                rows = data.frame.mapInArrow(write, "record string").collect()
            records = [json.loads(row.record) for row in rows]
            metadata = {name.decode(): value.decode() for name, value in (data.schema.metadata or {}).items()}
            summary = {
                "image_size": int(metadata["height"]),
                "classes": json.loads(metadata["classes"]),
                "parts": sorted(records, key=lambda record: record["name"]),
            }
            write_file(filesystem, f"{staging}/{COMPLETE}", json.dumps(summary, indent=1).encode())

    def preview(self) -> ImagePreview:
        """Sixteen scans in a grid, for Kedro-Viz; starts no JVM."""
        return ShardSetDataset(filepath=self._original_filepath, fs_args=self._options).preview()

    def _exists(self) -> bool:
        filesystem, path = open_filesystem(self._original_filepath, **self._options)
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))


def write_part(
    batches: Batches, function: Any, schema: pa.Schema, url: str, options: Mapping[str, Any] | None = None
) -> Iterator[pa.RecordBatch]:
    """Map the batches of one task and write the result as one parquet part; runs in a task.

    A retried or speculative copy of the task writes the same name with the same content, so whichever is
    renamed last leaves the same part. An attempt that fails leaves nothing.

    Yields:
        One row with the stats record: name, rows, row_groups (rows of each), labels, smallest and largest
        pixel, bytes, and seconds spent waiting for input and preparing (`prepare`) and writing (`write`).
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = context.partitionId() if context else 0
    name = f"part-{partition:05d}.parquet"
    filesystem, folder = open_filesystem(url, **(options or {}))
    record: dict[str, Any] = {"name": name, "bytes": 0, "minimum": 255, "maximum": 0, "started": time.time()}
    labels: Counter[int] = Counter()
    prepare = 0.0
    started = time.perf_counter()
    with write_parquet(filesystem, f"{folder}/{name}", schema, "snappy") as part:
        for batch, seconds in timed(function(batches)):
            prepare += seconds
            pixels = bytes_of(batch["pixels"])
            labels.update(batch["label"].to_pylist())
            record["bytes"] += pixels.size
            record["minimum"] = min(record["minimum"], int(pixels.min(initial=255)))
            record["maximum"] = max(record["maximum"], int(pixels.max(initial=0)))
            part.add(batch)
    record["rows"], record["row_groups"] = sum(part.row_groups), part.row_groups
    record["prepare"], record["write"] = prepare, time.perf_counter() - started - prepare
    record["labels"] = {str(label): count for label, count in sorted(labels.items())}
    record["ended"] = time.time()
    content = json.dumps(record)
    write_file(filesystem, f"{folder}/_stats/{name}.json", content.encode())
    yield pa.RecordBatch.from_pydict({"record": [content]})
