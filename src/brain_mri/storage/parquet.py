"""Parquet files: read by the calling thread alone, written row group by row group with the memory of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brain_mri.storage.files import replace_file

ROW_GROUP_BYTES = 16 * 2**20
"""Small enough to shuffle by row groups, large enough that reading one is a sequential read."""


class PartWriter:
    """Writes row groups, of rows that are given as one or collected until they have `ROW_GROUP_BYTES`.

    Attributes:
        row_groups: Rows of every row group written so far.
        bytes: Of the part, once it is written.
        sha256: Likewise, as hexadecimal digits.
    """

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self.row_groups: list[int] = []
        self.bytes = 0
        self.sha256 = ""

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows of the part's schema to those that make the next row group."""
        if not len(batch):
            return
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._writer.write_table(table, row_group_size=len(table))
            self.row_groups.append(len(table))
            self._pending, self._pending_bytes = [], 0


@contextmanager
def open_parquet(filesystem: Any, path: str, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """Open a parquet file so that the calling thread alone reads it, if `use_threads=False` is passed on.

    Arrow's own threads call back into Python for every read, while all cores have a task. And they let go of
    Python's file a moment after the read has returned: where the interpreter is ending by then, the process
    is aborted with "terminate called without an active exception"
    (https://github.com/apache/arrow/issues/34314).

    Args:
        filesystem: Where it is.
        path: Likewise.
        buffer_size: Bytes that are read at once of a column; 0 for all of a row group.

    Example:
        >>> with open_parquet(filesystem, "/data/part-00000.parquet") as file:
        ...     group = file.read_row_group(0, use_threads=False)
    """
    with filesystem.open(path, "rb") as stream:
        yield pq.ParquetFile(stream, pre_buffer=False, buffer_size=buffer_size)


def read_parquet(filesystem: Any, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or some of its columns, as `open_parquet` does.

    Raises:
        KeyError: There is no such column.
    """
    with open_parquet(filesystem, path) as file:
        table = file.read(columns=None if columns is None else list(columns), use_threads=False)
    return table if columns is None else table.select(list(columns))  # which says where one is missing


@contextmanager
def write_parquet(filesystem: Any, path: str, schema: pa.Schema, compression: str) -> Iterator[PartWriter]:
    """Write one part beside its place; it appears there, verified, when the block ends without an error.

    No column gets a dictionary: contents and pixels do not repeat, and looking for repetitions made writing
    four and reading ten times as long.

    Example:
        >>> with write_parquet(filesystem, "/data/part-00000.parquet", schema, "zstd") as part:
        ...     part.add(batch)
    """
    with replace_file(filesystem, path) as stream:
        with pq.ParquetWriter(stream, schema, compression=compression, use_dictionary=False) as writer:
            part = PartWriter(writer, schema)
            yield part
            part.flush()
        part.bytes, part.sha256 = stream.size, stream.sha256.hexdigest()
