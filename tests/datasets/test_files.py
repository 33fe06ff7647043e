"""Datasets that are one file: save and load, existence, missing files, protocols, previews."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from brain_mri.datasets import FigureDataset, HtmlDataset, JsonDataset, OptionalJsonDataset

PNG = b"\x89PNG"


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


def test_a_document_that_is_not_there_is_empty(tmp_path: Path) -> None:
    entry = OptionalJsonDataset(filepath=str(tmp_path / "section.json"))
    assert not entry.exists()
    assert entry.load() == {}
    JsonDataset(filepath=str(tmp_path / "section.json")).save({"title": "Speed"})
    assert entry.load() == {"title": "Speed"}


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    def draw() -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        return figure

    for number in (1, 2):
        FigureDataset(filepath=str(tmp_path / f"{number}.png")).save(draw())
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    entry = JsonDataset(filepath=str(tmp_path / "m.json"))
    entry.save({"accuracy": 0.5})
    with pytest.raises(DatasetError):
        entry.save({"accuracy": float("nan")})
    assert entry.load() == {"accuracy": 0.5}


def test_previews_are_what_kedro_viz_draws(tmp_path: Path) -> None:
    figure = FigureDataset(filepath=str(tmp_path / "f.png"))
    figure.save(Figure(figsize=(1, 1)))
    assert base64.b64decode(figure.preview()).startswith(PNG)
    document = JsonDataset(filepath=str(tmp_path / "d.json"))
    document.save({"a": 1})
    assert json.loads(document.preview()) == {"a": 1}
