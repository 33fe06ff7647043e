"""Catalog entries that are a table in one parquet file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from kedro.io import DatasetError
from kedro_datasets._typing import TablePreview
from numpy.typing import NDArray

from brain_mri.datasets.located import LocatedDataset
from brain_mri.storage.parquet import open_parquet, write_parquet
from brain_mri.storage.retry import retried

_ROWS_AT_ONCE = 2048
_BYTES_AT_ONCE = 64 * 2**20


@dataclass(frozen=True, eq=False)
class WideTable:
    """A table with a column of bytes that is too large to hold: they are fetched while the table is saved.

    Attributes:
        rows: The other columns.
        column: Name of the column of bytes; it becomes the last one.
        fetch: The bytes of some of the rows, in their order.
        sizes: How many bytes each row will have, where they may be large: so many are held at once.
    """

    rows: pd.DataFrame
    column: str
    fetch: Callable[[pd.DataFrame], Sequence[bytes | None]]
    sizes: NDArray[np.int64] | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The whole table, some rows at a time."""
        schema = self.schema
        for start, stop in self._cuts():
            part = self.rows.iloc[start:stop]
            light = pa.RecordBatch.from_pandas(part, schema.remove(len(schema) - 1), preserve_index=False)
            contents = pa.array(self.fetch(part), pa.binary())
            yield pa.RecordBatch.from_arrays([*light.columns, contents], schema=schema)

    def _cuts(self) -> Iterator[tuple[int, int]]:
        """Where the table is cut: at `_ROWS_AT_ONCE` or `_BYTES_AT_ONCE`, whichever comes first."""
        sizes = np.zeros(len(self.rows), np.int64) if self.sizes is None else self.sizes
        start, held = 0, 0
        for row, size in enumerate(sizes.tolist()):
            if row > start and (row - start == _ROWS_AT_ONCE or held + size > _BYTES_AT_ONCE):
                yield start, row
                start, held = row, 0
            held += size
        if start < len(self.rows):
            yield start, len(self.rows)

    @property
    def schema(self) -> pa.Schema:
        """Of the whole table."""
        light = pa.Schema.from_pandas(self.rows, preserve_index=False)
        return light.append(pa.field(self.column, pa.binary())).remove_metadata()


class TableDataset(LocatedDataset[pd.DataFrame | WideTable, pd.DataFrame]):
    """A pandas table in one parquet file, which appears whole: beside, verified, renamed.

    Args:
        load_args: `without`, names of columns that are not loaded; they are there for others.

    Example:
        ```yaml
        manifest:
          type: brain_mri.datasets.TableDataset
          filepath: ${globals:storage}/02_intermediate/manifest.parquet
          load_args: {without: [thumbnail]}
        ```

        >>> dataset = TableDataset(filepath="/tmp/manifest.parquet")
        >>> dataset.save(pd.DataFrame({"path": ["glioma/a.jpg"]}))
        >>> dataset.load().path.tolist()
        ['glioma/a.jpg']
    """

    def __init__(self, *, load_args: dict[str, Any] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._without = set((load_args or {}).get("without", ()))

    def load(self) -> pd.DataFrame:
        """Read the columns."""
        filesystem, path = self._open()
        with open_parquet(filesystem, path) as file:
            columns = [name for name in file.schema_arrow.names if name not in self._without]
            table: pd.DataFrame = file.read(columns, use_threads=False).to_pandas()
        return table

    def save(self, data: pd.DataFrame | WideTable) -> None:
        """Write the table, some rows at a time."""
        if isinstance(data, WideTable):
            schema, batches = data.schema, data.batches
        else:
            table = pa.Table.from_pandas(data, preserve_index=False)
            schema, batches = table.schema, partial(table.to_batches, _ROWS_AT_ONCE)
        retried(partial(self._write, schema, batches), self._filepath)

    def _write(self, schema: pa.Schema, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        with write_parquet(*self._open(), schema, "zstd") as part:
            for batch in batches():
                part.add(batch)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz; binary columns as their length."""
        filesystem, path = self._open()
        with open_parquet(filesystem, path, buffer_size=2**16) as file:
            first = next(file.iter_batches(nrows, use_threads=False), None)
            table = (file.schema_arrow.empty_table() if first is None else first).to_pandas()
        for name in table.columns:
            table[name] = [
                f"{len(value)} bytes" if isinstance(value, bytes) else value for value in table[name]
            ]
        return TablePreview(json.loads(table.to_json(orient="split", index=True)))

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.isfile(path))


class EarlierTableDataset(TableDataset):
    """A table as an earlier run left it, for a run that adds to it; empty where there is none.

    Example:
        ```yaml
        earlier_manifest:
          type: brain_mri.datasets.EarlierTableDataset
          filepath: ${globals:storage}/02_intermediate/manifest.parquet
        ```
    """

    def load(self) -> pd.DataFrame:
        """Read the columns."""
        return super().load() if self._exists() else pd.DataFrame()

    def save(self, data: pd.DataFrame | WideTable) -> None:
        """Refuse: it is written under the name that it has in this run."""
        raise DatasetError(f"{self._filepath} is read here as an earlier run left it.")
