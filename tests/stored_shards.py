"""Model inputs on a disk or on HDFS, as tasks write them, from arrays."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from brain_mri.datasets.shards import ShardSet, model_input_schema
from brain_mri.models.shards import ArrayShards
from brain_mri.storage.files import COMPLETE, open_filesystem, write_file
from brain_mri.storage.parquet import write_parquet


def store(shards: ArrayShards, url: str, row_group: int) -> ShardSet:
    """Write a set in one part, with so many rows a row group; the rest is in the last."""
    schema = model_input_schema(shards.image_size, shards.classes)
    filesystem, path = open_filesystem(url)
    with write_parquet(filesystem, f"{path}/part-00000-000-x.parquet", schema, "lz4") as part:
        for start in range(0, shards.rows, row_group):
            own = slice(start, start + row_group)
            numbers = range(start, start + len(shards.labels[own]))
            columns: list[Any] = [
                pa.array([f"{number * 2654435761 % 2**60:015x}".ljust(64, "0") for number in numbers]),
                pa.array(shards.labels[own]),
                pa.array(
                    [np.ascontiguousarray(image).tobytes() for image in shards.pixels[own]], pa.binary()
                ),
            ]
            part.add(pa.RecordBatch.from_arrays(columns, schema=schema))
            part.flush()
    record = {
        "name": "part-00000-000-x.parquet",
        "rows": shards.rows,
        "row_groups": part.row_groups,
        "labels": {str(label): count for label, count in Counter(shards.labels.tolist()).items()},
        "stored_bytes": part.bytes,
    }
    summary = {"image_size": shards.image_size, "classes": list(shards.classes), "parts": [record]}
    write_file(filesystem, f"{path}/{COMPLETE}", json.dumps(summary).encode())
    return ShardSet(url)
