"""A store of checkpoints is a handle that a task elsewhere can write through."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from kedro.io import DatasetError

from brain_mri.datasets import CheckpointStoreDataset


def test_what_is_saved_through_a_copy_of_the_handle_is_loaded(tmp_path: Path) -> None:
    dataset = CheckpointStoreDataset(filepath=str(tmp_path / "checkpoints"))
    assert dataset.exists(), "an empty store is one"
    store = dataset.load()
    assert store.load("1-s.weights.npz") is None
    elsewhere = pickle.loads(pickle.dumps(store))
    for content in (b"first", b"better"):
        elsewhere.save("1-s.weights.npz", content)
    assert store.load("1-s.weights.npz") == b"better"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1-s.weights.npz"]


def test_clearing_forgets_everything_and_may_be_repeated(tmp_path: Path) -> None:
    store = CheckpointStoreDataset(filepath=str(tmp_path / "checkpoints")).load()
    store.save("1-s.weights.npz", b"weights")
    (tmp_path / "checkpoints" / ".half-written.tmp").write_bytes(b"of a killed run")
    for _ in range(2):
        store.clear()
        assert store.load("1-s.weights.npz") is None
    assert list(tmp_path.iterdir()) == []


def test_the_entry_itself_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="through the handle"):
        CheckpointStoreDataset(filepath=str(tmp_path)).save(b"weights")  # type: ignore[arg-type]  # the point
