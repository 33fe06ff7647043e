"""A set of model inputs: packed, typed rows in parquet parts, and the handle through which tasks read it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from kedro.io import DatasetError
from numpy.typing import NDArray

from brain_mri.datasets.located import read_mark
from brain_mri.datasets.strands import Batch, Cut, Strand, cut_rows, joined, windows
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.storage.files import open_filesystem
from brain_mri.storage.parquet import open_parquet, read_parquet

if TYPE_CHECKING:
    import tensorflow as tf

_PREFETCHED = 4  # batches that wait while a step runs

SHUFFLE_WINDOW_BYTES = 128 * 2**20
"""So much is read and shuffled at once, though never less than a row group a strand: memory stays flat, and a
window still holds some thousand scans."""

STRANDS = 12
"""From so many places at once a shuffled set is drawn; workers share them. Most small numbers divide it."""


def model_input_schema(image_size: int, classes: tuple[str, ...]) -> pa.Schema:
    """The parquet schema of model inputs; size and class order travel in its metadata.

    Args:
        image_size: Height and width in pixels.
        classes: Class names; a label is an index into them.
    """
    metadata = {"height": str(image_size), "width": str(image_size), "classes": json.dumps(list(classes))}
    fields = [("scan_id", pa.string()), ("label", pa.int64()), ("pixels", pa.binary())]
    return pa.schema(fields, metadata=metadata)


class Column(NamedTuple):
    """Values of a fixed shape and type, stored as their bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ShardSet:
    """A small picklable handle to a complete set of model inputs; tasks read their rows through it.

    Attributes:
        url: The folder that holds the parts.
        options: Options of its filesystem.

    Example:
        >>> shards = ShardSet("/data/05_model_input/model_inputs_train.parquet")
        >>> shards.rows, shards.image_size
        (4109, 224)
        >>> scan_ids, labels, pixels = next(shards.batches(32))
        >>> pixels.shape, pixels.dtype
        ((32, 224, 224), dtype('uint8'))
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the completion mark says of the set: size, classes, and the stats record of every part."""
        remedy = "`kedro run --pipelines=preprocessing`"
        return read_mark(self.url, self.options, "set of model inputs", remedy)

    @property
    def preparation(self) -> str:
        """The same for the sets of all splits that were prepared together."""
        return str(self.summary.get("preparation", ""))

    @property
    def rows(self) -> int:
        """Number of scans."""
        return sum(record["rows"] for record in self.summary["parts"])

    @property
    def image_size(self) -> int:
        """Height and width of the pixels."""
        return int(self.summary["image_size"])

    @property
    def prepare_options(self) -> PrepareOptions:
        """How a scan became what is stored."""
        if "options" not in self.summary:
            raise DatasetError(
                f"{self.url} was published by an earlier brain_mri and does not say how its scans were "
                "prepared. Run `kedro run --pipelines=preprocessing`; finished parts are not made again."
            )
        return PrepareOptions(**self.summary["options"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return tuple(self.summary["classes"])

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is stored of a scan beside its id and label."""
        return (Column("pixels", (self.image_size, self.image_size), "uint8"),)

    @property
    def label_counts(self) -> dict[int, int]:
        """Number of scans by label, every label of the class order included."""
        counts: Counter[int] = Counter(dict.fromkeys(range(len(self.classes)), 0))
        for record in self.summary["parts"]:
            counts.update({int(label): count for label, count in record["labels"].items()})
        return dict(counts)

    @property
    def scan_ids(self) -> NDArray[np.str_]:
        """The ids of all scans in the order of the files, read without their pixels."""
        filesystem, path = open_filesystem(self.url, **self.options)
        ids: list[str] = []
        for record in self.summary["parts"]:
            table = read_parquet(filesystem, f"{path}/{record['name']}", ["scan_id"])
            ids += table["scan_id"].to_pylist()
        return np.asarray(ids, dtype=np.str_)

    def first(self, rows: int) -> Batch:
        """The first scans in the order of the files, fewer if there are fewer."""
        return self.read(cut_rows(self.row_groups(), 0, rows))

    def row_groups(self) -> list[tuple[str, int, int]]:
        """Every row group as (part, number within it, rows), in file order, from the stats records."""
        _, path = open_filesystem(self.url, **self.options)
        return [
            (f"{path}/{record['name']}", number, rows)
            for record in self.summary["parts"]
            for number, rows in enumerate(record["row_groups"])
        ]

    def stored_bytes(self) -> int:
        """Bytes of the files of all parts as they are there now, to check the stats records by."""
        filesystem, path = open_filesystem(self.url, **self.options)
        names = {record["name"] for record in self.summary["parts"]}
        entries = filesystem.ls(path, detail=True) if names else ()
        return sum(int(entry["size"]) for entry in entries if str(entry["name"]).rpartition("/")[2] in names)

    def read(self, cuts: Sequence[Cut]) -> Batch:
        """Read rows of row groups: scan ids (n,), labels int64 (n,), pixels uint8 (n, height, width)."""
        filesystem, _ = open_filesystem(self.url, **self.options)
        tables = []
        for cut in cuts:
            with open_parquet(filesystem, cut.part) as part:
                group = part.read_row_group(cut.row_group, use_threads=False)
                tables.append(group.slice(cut.start, cut.rows))
        if not tables:
            nothing = [np.empty((0, *column.shape), column.dtype) for column in self.columns]
            return np.empty(0, np.str_), np.empty(0, np.int64), *nothing
        table = pa.concat_tables(tables)
        scan_ids = np.asarray(table["scan_id"].to_pylist(), dtype=np.str_)
        values = [_values(table[column.name], column) for column in self.columns]
        return scan_ids, table["label"].to_numpy(), *values

    def batches(
        self, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, workers: int = 1
    ) -> Iterator[Batch]:
        """Yield every scan once, in batches of `batch_size`, the last one smaller; or a worker's share of it.

        Without a seed the order is that of the files, and a worker's share is a stretch of it. With one, row
        groups are put into a random order and cut into `STRANDS` of equal length; each is read as many row
        groups at a time as fit into its part of `SHUFFLE_WINDOW_BYTES`, shuffled, and every batch is drawn
        from all strands evenly: memory stays flat. Every worker follows its own strands. So the batches with
        one number, of all workers together, hold the same scans however many workers there are, and there are
        as many of every worker; some may be empty.

        Args:
            batch_size: Scans of a batch, of all workers together.
            shuffle_seed: Decides the order; None keeps that of the files.
            rank: Number of the worker, from 0.
            workers: How many share the set.

        Raises:
            ValueError: More than `STRANDS` workers.
        """
        if workers > STRANDS:
            raise ValueError(f"{workers} workers cannot share a set of model inputs: {STRANDS} at most.")
        if shuffle_seed is None:
            start, stop = (self.rows * number // workers for number in (rank, rank + 1))
            stretch = self._strand(cut_rows(self.row_groups(), start, stop), None, 1)
            size = max(batch_size // workers, 1)
            for first in range(start, stop, size):
                yield stretch.take(min(size, stop - first))
            return
        random = np.random.default_rng(shuffle_seed)
        stored = self.row_groups()
        groups = [stored[position] for position in random.permutation(len(stored))]
        # Whose turn it is at every place of the order: each strand once in a round, in a drawn order.
        rounds = np.tile(np.arange(STRANDS, dtype=np.int8), (-(-self.rows // STRANDS), 1))
        turns = random.permuted(rounds, axis=1).ravel()[: self.rows]
        ends = np.cumsum([0, *np.bincount(turns, minlength=STRANDS)])
        strands = {
            strand: self._strand(cut_rows(groups, start, stop), (shuffle_seed, strand), STRANDS)
            for strand, (start, stop) in enumerate(itertools.pairwise(ends))
            if strand % workers == rank
        }
        for first in range(0, self.rows, batch_size):
            wanted = np.bincount(turns[first : first + batch_size], minlength=STRANDS)
            yield joined([own.take(int(wanted[strand])) for strand, own in strands.items()])

    def _strand(self, cuts: list[Cut], seed: tuple[int, int] | None, strands: int) -> Strand:
        rows = SHUFFLE_WINDOW_BYTES // strands // self.image_size**2
        return Strand(self.read, windows(cuts, rows), None if seed is None else np.random.default_rng(seed))

    def arrays(self) -> Batch:
        """Everything at once, sorted by scan id; for sets that fit in memory."""
        scan_ids, labels, pixels = self.first(self.rows)
        order = np.argsort(scan_ids)
        return scan_ids[order], labels[order], pixels[order]

    def tensorflow(
        self, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """The set, or a worker's share of it, as one pass of a `tf.data.Dataset`, streamed: see `batches`.

        Yields:
            pixels uint8 (b, height, width, 1), label int64 (b,), and index int64 (b,): a number of the scan
            that depends on nothing but its content, from which augmentation can be drawn.
        """
        import tensorflow as tf

        def generate() -> Iterator[Batch]:
            for scan_ids, labels, *values in self.batches(batch_size, shuffle_seed, rank, workers):
                yield self._element(values), labels, scan_numbers(scan_ids)

        numbers = tf.TensorSpec((None,), tf.int64)
        signature = (self._element_spec(), numbers, numbers)
        dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
        if workers == 1:
            batches = -(-self.rows // batch_size)
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
        # With autotuning, the end of a pass can wait 40 s until the tuner's thread wakes up (seen in
        # TensorFlow 2.21, when the iterator is destroyed); and here is nothing to tune.
        fixed = tf.data.Options()
        fixed.autotune.enabled = False
        return dataset.prefetch(_PREFETCHED).with_options(fixed)

    def _element(self, values: list[Any]) -> Any:
        """What a batch of the `tf.data.Dataset` begins with."""
        return values[0][..., np.newaxis]

    def _element_spec(self) -> Any:
        import tensorflow as tf

        return tf.TensorSpec((None, self.image_size, self.image_size, 1), tf.uint8)


def _values(chunks: pa.ChunkedArray, column: Column) -> NDArray[Any]:
    stored = np.concatenate([bytes_of(chunk) for chunk in chunks.chunks])
    return stored.view(column.dtype).reshape(-1, *column.shape)


def bytes_of(column: pa.BinaryArray) -> NDArray[np.uint8]:
    """All values of a binary column in one array, without a copy."""
    if not len(column):
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]


def scan_numbers(scan_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """The first 60 bits of each scan id as a number.

    It is the same on every machine and in every order of files.
    """
    return np.asarray([int(scan_id[:15], 16) for scan_id in scan_ids.tolist()], dtype=np.int64)
