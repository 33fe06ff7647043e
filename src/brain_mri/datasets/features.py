"""What a frozen network computes of model inputs: kept in parquet, found by what it was made of."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from kedro.io import DatasetError
from numpy.typing import NDArray

from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.shards import Column, ShardSet, scan_numbers
from brain_mri.datasets.strands import Cut
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, write_file
from brain_mri.storage.parquet import write_parquet
from brain_mri.storage.retry import retried

logger = logging.getLogger(__name__)

_COMPRESSION = "lz4"  # behind a ReLU half of all values are zero

Extract = Callable[[NDArray[np.int64], NDArray[np.uint8]], list[NDArray[Any]]]
"""From numbers of scans ``(n,)`` and their pixels ``(n, h, w)`` to arrays ``(n, …)``."""

Columns = Mapping[int, Column]
"""The columns of a set, by the place of each among the arrays that an `Extract` gives."""


class FeatureSet(ShardSet):
    """A handle to what a frozen network computes of a set of model inputs.

    Its scans come in the order of that set, in the same batches, for the same seeds and workers; where that
    has pixels, this has the tensors of `columns`. So its shuffle window has as many rows, and more bytes.
    """

    @property
    def columns(self) -> tuple[Column, ...]:
        """The tensors, in the order in which the network gives them."""
        return tuple(Column(name, tuple(shape), dtype) for name, shape, dtype in self.summary["columns"])

    def _element(self, values: list[Any]) -> Any:
        return tuple(values)

    def _element_spec(self) -> Any:
        import tensorflow as tf

        return tuple(tf.TensorSpec((None, *column.shape), column.dtype) for column in self.columns)


@dataclass(frozen=True)
class FeatureCache:
    """A picklable handle to a folder of feature sets, each in a folder named by its key.

    Attributes:
        url: The folder; it need not be there yet.
        options: Options of its filesystem.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def find(self, key: str) -> FeatureSet | None:
        """The complete set of that key, which counts as used now; None where there is none."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        mark = f"{folder}/{key}/{COMPLETE}"
        try:
            summary = json.loads(read_file(filesystem, mark))
        except FileNotFoundError:
            return None
        write_file(filesystem, mark, json.dumps({**summary, "used": time.time()}).encode())
        return FeatureSet(f"{self.url}/{key}", self.options)

    def make_room(self, wanted: int, limit: int, keep: Iterable[str]) -> bool:
        """Remove sets, those first that were not used for longest, until there is room for another.

        Args:
            wanted: Bytes that are to be added.
            limit: Bytes that all sets may take.
            keep: Keys of sets that stay.

        Returns:
            Whether there is room; if not, nothing was removed.
        """
        filesystem, folder = open_filesystem(self.url, **self.options)
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        for name, is_folder in self._entries().items():
            sizes[name] = int(filesystem.du(f"{folder}/{name}"))
            used[name] = 0.0  # of an extraction that was broken off
            if is_folder:
                with suppress(FileNotFoundError, ValueError, KeyError):
                    mark = read_file(filesystem, f"{folder}/{name}/{COMPLETE}")
                    used[name] = float(json.loads(mark)["used"])
        staying = set(keep)
        if sum(size for name, size in sizes.items() if name in staying) + wanted > limit:
            return False
        for name in sorted(set(sizes) - staying, key=used.__getitem__):
            if sum(sizes.values()) + wanted <= limit and used[name]:
                break
            logger.info("Removing cached features that were not used for longest: %s.", name)
            self.remove(name)
            del sizes[name]
        return True

    def make(
        self,
        wanted: Mapping[str, Columns],
        source: ShardSet,
        extract: Extract,
        launcher: Launcher,
        progress: WithProgress = iter,
    ) -> dict[str, FeatureSet]:
        """Compute sets in tasks, one a row group of the source, and mark them as complete.

        Args:
            wanted: By the key of each set, its columns and where they stand in what `extract` gives.
            source: The model inputs.
            extract: Picklable; called in tasks.
            launcher: Runs the tasks.
            progress: What the stats records pass through as row groups end.
        """
        filesystem, folder = open_filesystem(self.url, **self.options)
        groups = source.row_groups()
        cuts = [(number, Cut(part, group, 0, rows)) for number, (part, group, rows) in enumerate(groups)]
        targets = {f"{self.url}/{key}": columns for key, columns in wanted.items()}
        task = partial(write_features, source=source, targets=targets, options=self.options, extract=extract)
        records = sorted(progress(launcher.map(task, cuts)), key=lambda record: int(record["number"]))
        names = ("image_size", "classes", "preparation")
        for key, columns in wanted.items():
            summary = {
                **{name: source.summary[name] for name in names if name in source.summary},
                "columns": [list(column) for column in columns.values()],
                "parts": [record["parts"][f"{self.url}/{key}"] for record in records],
                "used": time.time(),
            }
            write_file(filesystem, f"{folder}/{key}/{COMPLETE}", json.dumps(summary).encode())
        return {key: FeatureSet(f"{self.url}/{key}", self.options) for key in wanted}

    def write_graph(self, name: str, content: bytes) -> Callable[[], bytes]:
        """Keep a graph for tasks; the picklable answer reads it there."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        write_file(filesystem, f"{folder}/{name}", content)
        return partial(self._read, name)

    def remove(self, name: str) -> None:
        """Remove a set or a graph, if it is there."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        if filesystem.isdir(f"{folder}/{name}"):
            remove(filesystem, f"{folder}/{name}/{COMPLETE}")  # what a broken-off removal leaves is no set
        remove(filesystem, f"{folder}/{name}")

    def _read(self, name: str) -> bytes:
        filesystem, folder = open_filesystem(self.url, **self.options)
        return read_file(filesystem, f"{folder}/{name}")

    def _entries(self) -> dict[str, bool]:
        """Whether each entry is a folder, by its name."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        try:
            entries = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(entry["name"]).rstrip("/").rpartition("/")[2]: entry["type"] == "directory"
            for entry in entries
        }


def write_features(
    item: tuple[int, Cut],
    source: ShardSet,
    targets: Mapping[str, Columns],
    options: Mapping[str, Any],
    extract: Extract,
) -> dict[str, Any]:
    """Compute what a network makes of a row group, and write a part of every set; runs in a task.

    Returns:
        The number of the row group, its rows, and `parts`: by the URL of each set, the stats record of the
        part (name, rows, row_groups, labels, stored_bytes and sha256 of the file).
    """
    number, cut = item
    scan_ids, labels, pixels = source.read([cut])
    values = extract(scan_numbers(scan_ids), pixels)
    counts = Counter(labels.tolist())
    facts = {
        "name": f"part-{number:05d}.parquet",
        "rows": len(labels),
        "row_groups": [len(labels)],
        "labels": {str(label): count for label, count in sorted(counts.items())},
    }
    parts = {}
    for url, columns in targets.items():
        chosen = {column: values[place] for place, column in columns.items()}
        filesystem, folder = open_filesystem(url, **options)
        write = partial(_write_part, filesystem, f"{folder}/{facts['name']}", scan_ids, labels, chosen)
        parts[url] = {**facts, **retried(write, f"{folder}/{facts['name']}")}
    return {"number": number, "rows": len(labels), "parts": parts}


def _write_part(
    filesystem: Any,
    path: str,
    scan_ids: NDArray[np.str_],
    labels: NDArray[np.int64],
    values: Mapping[Column, NDArray[Any]],
) -> dict[str, Any]:
    names = [column.name for column in values]
    schema = pa.schema(
        [("scan_id", pa.string()), ("label", pa.int64()), *((name, pa.binary()) for name in names)]
    )
    arrays = [pa.array(scan_ids.tolist(), pa.string()), pa.array(labels)]
    for column, array in values.items():
        if array.shape[1:] != column.shape or array.dtype != column.dtype:
            raise DatasetError(f"{array.dtype} {array.shape[1:]} was computed where {column} was announced.")
        stored = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
        offsets = np.arange(len(stored) + 1, dtype=np.int32) * stored.shape[1]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(stored.reshape(-1))]
        arrays.append(pa.Array.from_buffers(pa.binary(), len(stored), buffers))
    with write_parquet(filesystem, path, schema, _COMPRESSION) as part:
        part.add(pa.RecordBatch.from_arrays(arrays, schema=schema))
        part.flush()
    return {"stored_bytes": part.bytes, "sha256": part.sha256}


class FeatureCacheDataset(LocatedDataset[None, FeatureCache]):
    """A folder of feature sets as a `FeatureCache`, the handle that training fills and reads.

    Example:
        ```yaml
        feature_cache:
          type: brain_mri.datasets.FeatureCacheDataset
          filepath: ${globals:storage}/05_model_input/features
        ```
    """

    def load(self) -> FeatureCache:
        """Return the handle; nothing is read."""
        return FeatureCache(self._filepath, self._options)

    def save(self, data: None) -> None:
        """Refuse: training itself fills it."""
        raise DatasetError("Training fills the cache, through the handle that this entry loads.")

    def _exists(self) -> bool:
        return True  # an empty cache is one
