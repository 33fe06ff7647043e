"""Model inputs through their handle: complete, streamed, the same in every order."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from kedro.io import DatasetError

from brain_mri.datasets import shards as shards_module
from brain_mri.datasets.shard_datasets import ShardSetDataset, TensorFlowShardsDataset
from brain_mri.datasets.shards import ShardSet, model_input_schema
from brain_mri.storage.files import COMPLETE, open_filesystem
from brain_mri.storage.parquet import write_parquet

CLASSES = ("glioma", "notumor")
SIZE = 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten scans in one part of several row groups, as a task writes them.

    Pixel values tell the scan.
    """
    monkeypatch.setattr("brain_mri.storage.parquet.ROW_GROUP_BYTES", 1)
    schema = model_input_schema(SIZE, CLASSES)
    target = tmp_path / "model_inputs_train.parquet"
    with write_parquet(*open_filesystem(str(target / "part-00000-000-x.parquet")), schema, "lz4") as part:
        for start in (0, 4, 8):
            numbers = range(start, min(start + 4, 10))
            ids = [f"{number:064x}"[::-1] for number in numbers]
            pixels = [bytes([number]) * SIZE**2 for number in numbers]
            columns = [pa.array(ids), pa.array([n % 2 for n in numbers]), pa.array(pixels, pa.binary())]
            part.add(pa.RecordBatch.from_arrays(columns, schema=schema))
    record = {
        "name": "part-00000-000-x.parquet",
        "rows": 10,
        "row_groups": part.row_groups,
        "labels": {"0": 5, "1": 5},
        "stored_bytes": part.bytes,
    }
    summary = {"image_size": SIZE, "classes": list(CLASSES), "parts": [record]}
    (target / COMPLETE).write_text(json.dumps(summary))
    return target


def test_the_handle_knows_its_set_without_reading_pixels(folder: Path) -> None:
    handle = pickle.loads(pickle.dumps(ShardSetDataset(filepath=str(folder)).load()))
    assert (handle.rows, handle.image_size, handle.classes, handle.label_counts) == (
        10,
        SIZE,
        CLASSES,
        {0: 5, 1: 5},
    )


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("window", [SIZE**2, 6 * SIZE**2, 2**20])
def test_every_scan_comes_once_whatever_the_order(
    folder: Path, seed: int | None, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "SHUFFLE_WINDOW_BYTES", window)
    batches = list(ShardSet(str(folder)).batches(3, seed))
    assert [len(scan_ids) for scan_ids, _, _ in batches] == [3, 3, 3, 1]
    numbers = np.concatenate([pixels[:, 0, 0] for _, _, pixels in batches])
    assert sorted(numbers) == list(range(10))
    assert (numbers % 2 == np.concatenate([labels for _, labels, _ in batches])).all()
    assert (list(numbers) == list(range(10))) == (seed is None)


@pytest.mark.parametrize("workers", [2, 3, 5, 12])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 20])
def test_workers_share_the_batches_of_one(folder: Path, workers: int, batch_size: int) -> None:
    handle = ShardSet(str(folder))
    whole = [set(scan_ids.tolist()) for scan_ids, _, _ in handle.batches(batch_size, 5)]
    shares = [list(handle.batches(batch_size, 5, rank, workers)) for rank in range(workers)]
    assert {len(share) for share in shares} == {len(whole)}
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert sorted(name for scan_ids, _, _ in parts for name in scan_ids) == sorted(batch)
        sizes = [len(scan_ids) for scan_ids, _, _ in parts]
        assert max(sizes) <= -(-batch_size // workers) + 1
        assert all(pixels.shape[1:] == (SIZE, SIZE) for _, _, pixels in parts)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_stored_order_too(folder: Path, workers: int) -> None:
    handle = ShardSet(str(folder))
    shares = [batch for rank in range(workers) for batch in handle.batches(4, None, rank, workers)]
    assert np.concatenate([pixels[:, 0, 0] for _, _, pixels in shares]).tolist() == list(range(10))


def test_more_workers_than_strands_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"13 workers cannot share .*: 12 at most"):
        next(ShardSet(str(folder)).batches(4, 1, 0, 13))


def test_a_seed_gives_one_order(folder: Path) -> None:
    def order(seed: int) -> list[str]:
        return [name for scan_ids, _, _ in ShardSet(str(folder)).batches(4, seed) for name in scan_ids]

    assert order(1) == order(1) != order(2)
    assert len({tuple(sorted(order(seed)[:4])) for seed in range(20)}) > 10, "batches mix anew"


def test_arrays_are_sorted_by_scan(folder: Path) -> None:
    scan_ids, labels, pixels = ShardSet(str(folder)).arrays()
    assert list(scan_ids) == sorted(scan_ids)
    assert pixels.shape == (10, SIZE, SIZE)
    assert (pixels[:, 0, 0] % 2 == labels).all()


def test_a_set_without_its_completion_mark_does_not_exist(folder: Path) -> None:
    (folder / COMPLETE).unlink()
    dataset = ShardSetDataset(filepath=str(folder))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="kedro run --pipelines=preprocessing"):
        dataset.load()


def test_the_preview_is_a_picture_made_without_spark(folder: Path) -> None:
    assert len(ShardSetDataset(filepath=str(folder)).preview()) > 100


@pytest.mark.tensorflow
def test_tensorflow_sees_the_same_scans(folder: Path) -> None:
    dataset = TensorFlowShardsDataset(
        filepath=str(folder), load_args={"batch_size": 4, "shuffle_seed": 3}
    ).load()
    pixels, labels, numbers = zip(*dataset.as_numpy_iterator(), strict=True)
    assert [part.shape for part in pixels] == [(4, SIZE, SIZE, 1), (4, SIZE, SIZE, 1), (2, SIZE, SIZE, 1)]
    assert sorted(np.concatenate(pixels)[:, 0, 0, 0]) == list(range(10))
    assert (np.concatenate(pixels)[:, 0, 0, 0] % 2 == np.concatenate(labels)).all()
    assert len(set(np.concatenate(numbers))) == 10


def test_row_groups_are_known_without_opening_a_part(folder: Path) -> None:
    handle = ShardSet(str(folder))
    part = folder / "part-00000-000-x.parquet"
    assert handle.stored_bytes() == part.stat().st_size
    part.unlink()
    assert handle.row_groups() == [(str(part), 0, 4), (str(part), 1, 4), (str(part), 2, 2)]
