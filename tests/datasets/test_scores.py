from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from brain_mri.datasets import scoring as task
from brain_mri.datasets.scores import ScoresDataset, Scoring
from brain_mri.datasets.versions import FolderVersion, VersionedFolderDataset
from brain_mri.inference.classifier import Calibration, ScanClassifier
from brain_mri.inference.novelty import make_reference
from tests.imaging.hostile import hostile_files
from tests.linear_graphs import linear_graph

CLASSES = ("left", "right")
SIZE = 32


class Here:
    """A launcher of this process that counts the pieces, and stops after some of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.pieces = 0
        self._stop_after = stop_after

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            if self.pieces == self._stop_after:
                raise KeyboardInterrupt
            self.pieces += 1
            yield function(item)


@pytest.fixture
def version(tmp_path: Path) -> FolderVersion:
    """A classifier that names the brighter half, and knows pictures with a bright half alone."""
    weights = np.zeros((SIZE, SIZE, 2), np.float32)
    weights[:, : SIZE // 2, 0] = weights[:, SIZE // 2 :, 1] = 4 / (SIZE * SIZE * 255)
    calibration = Calibration(temperature=1.0, abstention_threshold=0.7, out_of_distribution_threshold=0.3)
    dataset = VersionedFolderDataset(filepath=str(tmp_path / "classifier"))
    dataset.save(
        {
            "graph.onnx": linear_graph(weights.reshape(-1, 2), SIZE),
            "preparation.json": json.dumps({"image_size": SIZE}).encode(),
            "calibration.json": calibration.model_dump_json().encode(),
            "reference_features.npy": make_reference(np.eye(2)[[0, 1] * 5], 1).to_bytes(),
            "recipe.json": json.dumps({"classes": CLASSES}).encode(),
        }
    )
    return dataset.load()


def picture(left: int, right: int) -> bytes:
    pixels = np.full((SIZE, SIZE), left, np.uint8)
    pixels[:, SIZE // 2 :] = right
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def scoring(tmp_path: Path, version: FolderVersion) -> Scoring:
    """Ten files: bright left halves, bright right halves, one that is neither."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rows = []
    for number in range(10):
        path = folder / f"{number}.png"
        path.write_bytes(
            picture(255, 200) if number == 9 else picture(*((255, 0) if number % 2 else (0, 255)))
        )
        label = None if number == 9 else CLASSES[1 - number % 2]
        rows.append((f"scans/{number}.png", str(path), path.stat().st_size, label))
    files = pd.DataFrame(rows, columns=["path", "url", "bytes", "label"])
    return Scoring(files, version, CLASSES, Here())


@pytest.fixture
def dataset(tmp_path: Path) -> ScoresDataset:
    return ScoresDataset(filepath=str(tmp_path / "scores.parquet"))


def test_every_file_is_a_row_with_what_the_classifier_says(
    dataset: ScoresDataset, scoring: Scoring, version: FolderVersion
) -> None:
    dataset.save(scoring)
    table = dataset.load().to_pandas()
    assert table["path"].tolist() == scoring.files["path"].tolist()
    assert (table["status"] == "scored").all()
    assert table["predicted_class"].tolist() == ["right", "left"] * 4 + ["right", "left"]
    assert table["label"].isna().tolist() == [False] * 9 + [True]
    content = Path(scoring.files["url"][9]).read_bytes()
    assert table["scan_id"][9] == hashlib.sha256(content).hexdigest()
    classifier = ScanClassifier(version.read)
    answers = classifier.answer(classifier.prepare(content)[np.newaxis])
    assert table["confidence"][9] == answers.calibrated.max()
    assert table["probability_left"][9] == answers.calibrated[0, 0]
    assert table["uncalibrated_left"][9] == answers.probabilities[0, 0]
    assert table["abstained"].tolist() == [False] * 9 + [True]
    assert table["out_of_distribution"].tolist() == [False] * 9 + [True]
    assert (table["model_version"] == version.version).all()
    assert pd.read_parquet(dataset._filepath).shape == table.shape  # as anybody else reads it


def test_what_cannot_be_used_is_a_row_with_its_reason(
    dataset: ScoresDataset, scoring: Scoring, tmp_path: Path
) -> None:
    rows, reasons = [], []
    for file in hostile_files():
        path = tmp_path / "scans" / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        rows.append((file.name, str(path), len(file.content), None))
        reasons.append(file.reason)
    rows.append(("gone.png", str(tmp_path / "gone.png"), 0, None))
    reasons.append("unreadable")
    files = pd.DataFrame(rows, columns=["path", "url", "bytes", "label"])
    dataset.save(replace(scoring, files=files))
    table = dataset.load().to_pandas()
    assert table["reason"].tolist() == reasons
    assert (table["status"] == np.where(table["reason"] == "", "scored", "refused")).all()
    refused = table[table["status"] == "refused"]
    assert refused[["predicted_class", "confidence", "abstained", "distance"]].isna().all(axis=None)
    summary = dataset.load().summary
    assert summary["refused"] == refused["reason"].value_counts().sort_index().to_dict()
    assert summary["scored"] + sum(summary["refused"].values()) == summary["files"] == len(files)


def test_a_run_that_was_broken_off_is_gone_on_with(
    dataset: ScoresDataset, scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "PIECE_FILES", 2)
    dataset.save(scoring)
    before = dataset.load().to_pandas()
    for path in scoring.files["url"]:
        Path(path).write_bytes(picture(0, 255))
    stopping, rest = Here(stop_after=3), Here()
    with pytest.raises(KeyboardInterrupt):
        dataset.save(replace(scoring, launcher=stopping))
    pd.testing.assert_frame_equal(dataset.load().to_pandas(), before)  # until the new one is complete
    dataset.save(replace(scoring, launcher=rest))
    assert (stopping.pieces, rest.pieces) == (3, 2)
    after = dataset.load().to_pandas()
    assert (after["predicted_class"] == "right").all()
    assert after["path"].tolist() == before["path"].tolist()
    again = Here()
    dataset.save(replace(scoring, launcher=again))
    assert again.pieces == 5  # a complete table is made anew: files may have changed


def test_pieces_are_bounded_by_files_and_by_bytes(scoring: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes() -> list[int]:
        return [
            len(piece.files) for piece in task.plan_pieces(scoring.files, scoring.version, scoring.limits)
        ]

    assert sizes() == [10]
    monkeypatch.setattr(task, "PIECE_FILES", 4)
    assert sizes() == [4, 4, 2]
    monkeypatch.setattr(task, "PIECE_BYTES", int(scoring.files["bytes"][:3].sum()))
    assert max(sizes()) <= 3
    assert sum(sizes()) == 10
    monkeypatch.setattr(task, "PIECE_BYTES", 1)
    assert sizes() == [1] * 10


def test_what_is_no_table_of_scores_is_left_alone(tmp_path: Path, scoring: Scoring) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="is no table of scores"):
        ScoresDataset(filepath=str(mine)).save(scoring)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(DatasetError, match="kedro predict PATH"):
        ScoresDataset(filepath=str(mine)).load()
