"""Datasets that are one file: save and load, existence, missing files, protocols, previews."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem
from kedro.io import DatasetError
from matplotlib.figure import Figure

from brain_mri.datasets import FigureDataset, HtmlDataset, JsonDataset, TableDataset

PNG = b"\x89PNG"


def _table() -> pd.DataFrame:
    return pd.DataFrame({"path": ["ä b.jpg", "c.jpg"], "content": [b"\x00\x01", None], "width": [3, 4]})


@pytest.mark.parametrize("root", ["{tmp_path}", "memory://datasets"])
@pytest.mark.parametrize(
    ("dataset", "value"),
    [(JsonDataset, {"ä": [1, 0.1, None]}), (HtmlDataset, "<p>ä</p>"), (FigureDataset, PNG + b"rest")],
)
def test_what_is_saved_is_loaded(root: str, dataset, value, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    entry = dataset(filepath=f"{root.format(tmp_path=tmp_path)}/{dataset.__name__}/file")
    assert not entry.exists()
    with pytest.raises(DatasetError):
        entry.load()
    entry.save(value)
    assert entry.exists()
    assert entry.load() == value


def test_a_table_keeps_types_bytes_and_gaps(tmp_path: Path) -> None:
    entry = TableDataset(filepath=str(tmp_path / "t.parquet"))
    entry.save(_table())
    pd.testing.assert_frame_equal(entry.load(), _table())


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    def draw() -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        return figure

    for number in (1, 2):
        TableDataset(filepath=str(tmp_path / f"{number}.parquet")).save(_table())
        FigureDataset(filepath=str(tmp_path / f"{number}.png")).save(draw())
    for suffix in ("parquet", "png"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    entry = JsonDataset(filepath=str(tmp_path / "m.json"))
    entry.save({"accuracy": 0.5})
    with pytest.raises(DatasetError):
        entry.save({"accuracy": float("nan")})
    assert entry.load() == {"accuracy": 0.5}


def test_previews_are_what_kedro_viz_draws(tmp_path: Path) -> None:
    table = TableDataset(filepath=str(tmp_path / "t.parquet"))
    table.save(_table())
    assert table.preview(nrows=1) == {
        "index": [0],
        "columns": ["path", "content", "width"],
        "data": [["ä b.jpg", "2 bytes", 3]],
    }
    figure = FigureDataset(filepath=str(tmp_path / "f.png"))
    figure.save(Figure(figsize=(1, 1)))
    assert base64.b64decode(figure.preview()).startswith(PNG)
    document = JsonDataset(filepath=str(tmp_path / "d.json"))
    document.save({"a": 1})
    assert json.loads(document.preview()) == {"a": 1}


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
