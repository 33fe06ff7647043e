"""What Spark tasks do with Arrow batches of scans."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Ingestion has decided what is used; a second judgement here could only contradict it.
_NO_LIMITS = DecodeLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize, min_side=1, min_contrast=0)

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class MappedBatches:
    """A DataFrame, and what its tasks do to every Arrow batch of it: a lazy value, like a DataFrame.

    `frame.mapInArrow(function, …)` would send the result back into the JVM and out again. Kept apart, the
    dataset that saves it can run the function and write what it returns in the same task, without that
    detour.

    Attributes:
        frame: The rows that go in.
        function: Called once a task with the iterator of its batches; picklable.
        schema: Of the batches that come out, with metadata for the parquet files.
    """

    frame: DataFrame
    function: Callable[[Batches], Batches]
    schema: pa.Schema


def prepared_scans(frame: DataFrame, options: PrepareOptions, schema: pa.Schema) -> MappedBatches:
    """Decode, convert to grey and resize every scan of a DataFrame.

    Args:
        frame: Columns `scan_id`, `label` (index), `content` (the file's bytes).
        options: What is done to a scan; see `imaging.prepare`.
        schema: Of the model inputs.

    Returns:
        Rows `scan_id`, `label`, `pixels` (image_size² bytes, row-major), not yet computed.
    """
    return MappedBatches(frame, partial(prepare_batches, options=options, schema=schema), schema)


def prepare_batches(batches: Batches, options: PrepareOptions, schema: pa.Schema) -> Batches:
    """Turn batches of encoded scans into batches of model inputs; runs in a task."""
    import cv2

    cv2.setNumThreads(1)  # Spark runs a task a core; threads on top of that only get in each other's way
    for batch in batches:
        pixels = [
            prepare_scan(content.as_py(), options, _NO_LIMITS).tobytes() for content in batch["content"]
        ]
        yield pa.RecordBatch.from_arrays(
            [batch["scan_id"], batch["label"].cast(pa.int64()), pa.array(pixels, pa.binary())], schema=schema
        )


def timed(batches: Batches) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Yield each batch with the seconds that it took to come."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start
