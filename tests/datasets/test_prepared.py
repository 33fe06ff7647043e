"""Preparing scans: planned by bytes, named by content, resumed where it broke off, published whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from brain_mri.datasets import PackedScansDataset, PreparedPartsDataset, ShardSet, SparkShardsDataset
from brain_mri.datasets import prepared as prepared_module
from brain_mri.datasets.prepared import Preparation, plan_pieces
from brain_mri.datasets.scans import Block, PackedScans, Packing
from brain_mri.datasets.shards import model_input_schema
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.spark.preparing import UNUSED

SPLITS = ("train", "validation", "test")
CLASSES = ("glioma", "notumor")
SCANS = 48


class Here:
    """Runs tasks in this process, and breaks off after some."""

    def __init__(self, tasks: int = 1_000) -> None:
        self.tasks, self.done = tasks, 0

    def map(self, function: Any, items: Any) -> Iterator[Any]:
        for item in items:
            if self.done == self.tasks:
                raise OSError("a worker died")
            self.done += 1
            yield function(item)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackedScans:
    """Forty-eight pictures in four blocks of several row groups."""
    monkeypatch.setattr("brain_mri.storage.parquet.ROW_GROUP_BYTES", 10_000)
    (tmp_path / "source").mkdir()
    paths = []
    for number in range(SCANS):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 44), dtype=np.uint8)
        paths.append(tmp_path / "source" / f"{number}.png")
        paths[-1].write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    rows = [(path.name, str(path)) for path in paths]
    dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
    dataset.save(Packing(tuple(Block(number, tuple(rows[number::4])) for number in range(4)), Here()))
    return dataset.load()


@pytest.fixture
def rows(scans: PackedScans) -> pd.DataFrame:
    """All scans but the last four, with split and label."""
    ids = sorted(scan_id for record in scans.stats() for scan_id in scans.scan_ids(record))[:-4]
    splits = [SPLITS[0 if number % 4 < 2 else number % 4 - 1] for number in range(len(ids))]
    return pd.DataFrame(
        {"scan_id": ids, "split": splits, "label": [number % 2 for number in range(len(ids))]}
    )


def _dataset(root: Path) -> PreparedPartsDataset:
    return PreparedPartsDataset(
        filepath=str(root / "prepared_parts"), parts=str(root / "inputs_{split}.parquet")
    )


def _plan(scans: PackedScans, rows: pd.DataFrame, launcher: Any, image_size: int = 32) -> Preparation:
    schema = model_input_schema(image_size, CLASSES)
    return Preparation(scans, rows, SPLITS, PrepareOptions(image_size), schema, launcher)


def _publish(root: Path) -> dict[str, ShardSet]:
    sets = {}
    for split in SPLITS:
        url = str(root / f"inputs_{split}.parquet")
        SparkShardsDataset(filepath=url).save(_dataset(root).load().summary(split))
        sets[split] = ShardSet(url)
    return sets


def _digests(root: Path) -> dict[str, str]:
    """sha256 of every part below a root by its path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.glob("inputs_*.parquet/part-*"))
    }


@pytest.mark.parametrize("piece_bytes", [1, 30_000, 2**25])
def test_every_scan_that_is_used_is_in_one_piece(
    scans: PackedScans, rows: pd.DataFrame, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_module, "PIECE_BYTES", piece_bytes)
    pieces = list(plan_pieces(scans, rows, SPLITS))
    assert sum((piece.splits != UNUSED).sum() for piece in pieces) == len(rows)
    groups = [(piece.block, group) for piece in pieces for group in piece.row_groups]
    assert len(groups) == len(set(groups)) == sum(len(record["row_groups"]) for record in scans.stats())
    assert len(pieces) == {1: len(groups), 2**25: 4}.get(piece_bytes, len(pieces))
    assert 4 <= len(pieces) <= len(groups)


def test_splits_and_labels_reach_their_scans(scans: PackedScans, rows: pd.DataFrame, tmp_path: Path) -> None:
    _dataset(tmp_path).save(_plan(scans, rows, Here()))
    wanted = rows.set_index("scan_id")
    for split, shards in _publish(tmp_path).items():
        scan_ids, labels, _ = shards.arrays()
        assert set(scan_ids.tolist()) == set(wanted.index[wanted["split"] == split])
        assert wanted.loc[scan_ids.tolist(), "label"].tolist() == labels.tolist()


def test_what_is_prepared_is_not_prepared_again(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path
) -> None:
    first, second = Here(), Here()
    _dataset(tmp_path).save(_plan(scans, rows, first))
    before = _dataset(tmp_path).load()
    _dataset(tmp_path).save(_plan(scans, rows, second))
    assert (first.done, second.done) == (4, 0)
    assert _dataset(tmp_path).load() == before


@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_a_preparation_that_breaks_off_goes_on_with_what_is_missing(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path, tasks: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _dataset(whole).save(_plan(scans, rows, Here()))
    with pytest.raises(DatasetError, match="a worker died"):
        _dataset(broken).save(_plan(scans, rows, Here(tasks)))
    assert not _dataset(broken).exists()
    rest = Here()
    _dataset(broken).save(_plan(scans, rows, rest))
    assert rest.done == 4 - tasks
    assert _digests(broken) == _digests(whole)


def test_other_splits_labels_or_sizes_are_other_parts(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path
) -> None:
    _dataset(tmp_path).save(_plan(scans, rows, Here()))
    old = _publish(tmp_path)["train"].summary
    for changed, tasks in (
        (rows.assign(label=1 - rows["label"]), 4),
        (rows.assign(split=rows["split"].where(rows.index != 5, "test")), 1),
    ):
        launcher = Here()
        _dataset(tmp_path).save(_plan(scans, changed, launcher))
        assert launcher.done == tasks
        assert ShardSet(str(tmp_path / "inputs_train.parquet")).summary == old, (
            "a set changes with its mark alone"
        )
        _dataset(tmp_path).save(_plan(scans, rows, Here()))
    launcher = Here()
    _dataset(tmp_path).save(_plan(scans, rows, launcher, image_size=24))
    assert launcher.done == 4
    sets = _publish(tmp_path)
    assert {shards.image_size for shards in sets.values()} == {24}
    named = {
        f"inputs_{split}.parquet/{part['name']}" for split in SPLITS for part in sets[split].summary["parts"]
    }
    assert set(_digests(tmp_path)) == named, "parts that no set names are gone"
    records = {path.stem for path in (tmp_path / "prepared_parts").glob("*.json")}
    assert records == {record["name"] for record in _dataset(tmp_path).load().records}


def test_scans_that_are_added_leave_the_parts_of_earlier_ones(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path
) -> None:
    held = {record["name"]: set(scans.scan_ids(record)) for record in scans.stats()}
    later = held.pop(scans.stats()[0]["name"])
    _dataset(tmp_path).save(_plan(scans, rows[~rows["scan_id"].isin(later)], Here()))
    before = _digests(tmp_path)
    launcher = Here()
    _dataset(tmp_path).save(_plan(scans, rows, launcher))
    assert launcher.done == 1
    assert before.items() < _digests(tmp_path).items()


@pytest.mark.parametrize("harm", ["part gone", "part cut", "record gone", "record cut"])
def test_a_harmed_piece_is_prepared_again(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path, harm: str
) -> None:
    _dataset(tmp_path).save(_plan(scans, rows, Here()))
    whole = _digests(tmp_path)
    what, how = harm.split()
    [path, *_] = sorted(tmp_path.glob("inputs_test.parquet/*" if what == "part" else "prepared_parts/part-*"))
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert _dataset(tmp_path).exists() == (what == "record"), "what is recorded and stored is enough to go on"
    launcher = Here()
    _dataset(tmp_path).save(_plan(scans, rows, launcher))
    assert launcher.done == 1
    assert _digests(tmp_path) == whole


@pytest.mark.parametrize(
    "content", ["[]", "null", "{}", '{"splits": {}}', '{"splits": {"train": null}}', '{"name": "x"}', "�"]
)
def test_what_is_no_record_or_no_mark_stops_nothing(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path, content: str
) -> None:
    _dataset(tmp_path).save(_plan(scans, rows, Here()))
    whole = _digests(tmp_path)
    [path, *_] = sorted((tmp_path / "prepared_parts").glob("part-*"))
    for harmed in (path, path.with_name("another.json"), path.with_name("_SUCCESS")):
        harmed.write_text(content)
    assert not _dataset(tmp_path).exists()
    launcher = Here()
    _dataset(tmp_path).save(_plan(scans, rows, launcher))
    assert launcher.done == 1
    assert _digests(tmp_path) == whole
    assert _dataset(tmp_path).exists()


def test_sets_of_one_preparation_know_each_other(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path
) -> None:
    def preparations(rows: pd.DataFrame) -> list[str]:
        _dataset(tmp_path).save(_plan(scans, rows, Here()))
        prepared = _dataset(tmp_path).load()
        return [prepared.summary(split)["preparation"] for split in ("train", "validation", "test")]

    first, again, others = preparations(rows), preparations(rows), preparations(rows.iloc[1:])
    assert first == again
    assert len(set(first)) == 1
    assert len(set(others)) == 1
    assert set(first) != set(others)


def test_a_set_is_not_published_without_its_parts(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path
) -> None:
    _dataset(tmp_path).save(_plan(scans, rows, Here()))
    elsewhere = SparkShardsDataset(filepath=str(tmp_path / "elsewhere.parquet"))
    with pytest.raises(DatasetError, match="lacks parts that were prepared: part-"):
        elsewhere.save(_dataset(tmp_path).load().summary("train"))
    assert not elsewhere.exists()


def test_nothing_prepared_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="kedro run --pipelines=preprocessing"):
        _dataset(tmp_path).load()


def test_options_of_the_filesystem_reach_the_tasks(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path, keyed_disk: dict[str, str]
) -> None:
    dataset = PreparedPartsDataset(
        filepath=f"keyed://{tmp_path}/prepared_parts",
        parts=f"keyed://{tmp_path}/inputs_{{split}}.parquet",
        credentials=keyed_disk,
    )
    keyed = PackedScans(f"keyed://{scans.url}", keyed_disk)
    dataset.save(_plan(keyed, rows, Here()))
    assert dataset.exists()
    assert sum(record["rows"] for record in dataset.load().records) == len(rows)


_KILLED = """
import sys, time
import brain_mri.spark.preparing as preparing
from tests.datasets.test_prepared import Here, _dataset, _plan
import pandas as pd, pathlib
from brain_mri.datasets.scans import PackedScans
from brain_mri.datasets import prepared
prepared.PIECE_BYTES = 1
slowly = preparing.prepare_scan
preparing.prepare_scan = lambda *arguments: (time.sleep(0.01), slowly(*arguments))[1]
root = pathlib.Path(sys.argv[2])
_dataset(root).save(_plan(PackedScans(sys.argv[1]), pd.read_pickle(sys.argv[3]), Here()))
"""


def test_kills_at_random_points_lose_no_finished_piece(
    scans: PackedScans, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_module, "PIECE_BYTES", 1)
    _dataset(tmp_path / "whole").save(_plan(scans, rows, Here()))
    rows.to_pickle(tmp_path / "rows.pickle")
    root, finished, draw = tmp_path / "killed", dict[str, int](), random.Random(8)
    root.mkdir()
    command = [sys.executable, "-c", _KILLED, scans.url, str(root), str(tmp_path / "rows.pickle")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    kills = 0
    while kills < 30:
        run = subprocess.Popen(command, env=environment)
        while run.poll() is None and len(_records(root)) <= len(finished):
            time.sleep(0.002)  # until this run has finished a piece of its own
        time.sleep(draw.random() / 20)
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
        records = _records(root)
        assert finished.items() <= records.items(), "a finished piece was made again"
        for name in records:
            json.loads((root / "prepared_parts" / f"{name}.json").read_text())
        finished = records
    assert run.wait() == 0
    assert kills >= 2
    assert finished.items() <= _records(root).items()
    assert _digests(root) == _digests(tmp_path / "whole")


def _records(root: Path) -> dict[str, int]:
    """When the record of each finished piece was written."""
    return {path.stem: path.stat().st_mtime_ns for path in root.glob("prepared_parts/part-*.json")}
