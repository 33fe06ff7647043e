"""Tables in one file: types and gaps kept, wide columns streamed, earlier ones that may not be there."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from kedro.io import DatasetError

from brain_mri.datasets import EarlierTableDataset, TableDataset
from brain_mri.datasets.tables import WideTable


def _table() -> pd.DataFrame:
    return pd.DataFrame({"path": ["ä b.jpg", "c.jpg"], "content": [b"\x00\x01", None], "width": [3, 4]})


def test_a_table_keeps_types_bytes_and_gaps(tmp_path: Path) -> None:
    entry = TableDataset(filepath=str(tmp_path / "t.parquet"))
    entry.save(_table())
    pd.testing.assert_frame_equal(entry.load(), _table())


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in (1, 2):
        TableDataset(filepath=str(tmp_path / f"{number}.parquet")).save(_table())
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_columns_can_be_left_out(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    TableDataset(filepath=path).save(_table())
    light = TableDataset(filepath=path, load_args={"without": ["content"]}).load()
    pd.testing.assert_frame_equal(light, _table().drop(columns="content"))


def test_an_earlier_table_may_be_missing_and_is_never_written(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    earlier = EarlierTableDataset(filepath=path, load_args={"without": ["content"]})
    assert earlier.load().empty
    TableDataset(filepath=path).save(_table())
    pd.testing.assert_frame_equal(earlier.load(), _table().drop(columns="content"))
    with pytest.raises(DatasetError, match="as an earlier run left it"):
        earlier.save(_table())


def test_a_wide_column_is_fetched_while_the_table_is_saved(tmp_path: Path) -> None:
    rows = pd.DataFrame({"number": range(5_000), "name": [None if n % 3 else str(n) for n in range(5_000)]})

    def fetch(some: pd.DataFrame) -> list[bytes | None]:
        return [None if number == 7 else bytes([number % 251]) * 20_000 for number in some["number"]]

    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    tracemalloc.start()
    try:
        dataset.save(WideTable(rows, "pixels", fetch))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000 * 20_000 / 1.5, "not all of it may be held"
    loaded = dataset.load()
    pd.testing.assert_frame_equal(loaded[["number", "name"]], rows)
    assert loaded["pixels"].tolist() == fetch(rows)
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups > 1


def test_a_wide_table_is_cut_by_bytes_where_rows_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain_mri.datasets.tables._BYTES_AT_ONCE", 100)
    sizes = np.array([10, 95, 300, 0, 60, 40, 1])
    fetched: list[list[int]] = []

    def fetch(part: pd.DataFrame) -> list[bytes]:
        fetched.append(part["number"].tolist())
        return [bytes(int(sizes[number])) for number in part["number"]]

    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(WideTable(pd.DataFrame({"number": range(7)}), "content", fetch, sizes))
    assert fetched == [[0], [1], [2], [3, 4, 5], [6]]
    assert [len(content) for content in dataset.load()["content"]] == sizes.tolist()


def test_a_wide_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(WideTable(pd.DataFrame({"path": pd.Series([], dtype=str)}), "content", lambda rows: []))
    assert list(dataset.load().columns) == ["path", "content"]


def test_a_preview_shows_bytes_as_their_length(tmp_path: Path) -> None:
    table = TableDataset(filepath=str(tmp_path / "t.parquet"))
    table.save(_table())
    assert table.preview(nrows=1) == {
        "index": [0],
        "columns": ["path", "content", "width"],
        "data": [["ä b.jpg", "2 bytes", 3]],
    }


def test_a_preview_of_a_table_reads_its_start(tmp_path: Path) -> None:
    read: list[int] = []

    class CountedFile(io.FileIO):
        def readinto(self, buffer):  # type: ignore[no-untyped-def]
            read.append(super().readinto(buffer) or 0)
            return read[-1]

        def read(self, size=-1):  # type: ignore[no-untyped-def]
            content = super().read(size)
            read.append(len(content))
            return content

    class CountedDisk(LocalFileSystem):
        protocol = "counted"

        def open(self, path, mode="rb", **arguments):  # type: ignore[no-untyped-def]
            return CountedFile(self._strip_protocol(path)) if mode == "rb" else super().open(path, mode)

        @classmethod
        def _strip_protocol(cls, path):  # type: ignore[no-untyped-def]
            return super()._strip_protocol(str(path).removeprefix("counted://"))

    fsspec.register_implementation("counted", CountedDisk, clobber=True)
    random = np.random.default_rng(1)
    table = pd.DataFrame({"path": range(10_000), "thumbnail": [random.bytes(1_000) for _ in range(10_000)]})
    dataset = TableDataset(filepath=f"counted://{tmp_path}/t.parquet")
    dataset.save(table)
    read.clear()
    assert [row[0] for row in dataset.preview(nrows=3)["data"]] == [0, 1, 2]
    assert 0 < sum(read) < (tmp_path / "t.parquet").stat().st_size / 4


def test_a_table_without_rows_has_a_preview(tmp_path: Path) -> None:
    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(_table().head(0))
    assert dataset.preview() == {"index": [], "columns": ["path", "content", "width"], "data": []}
