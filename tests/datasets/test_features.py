from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brain_mri.datasets.features import FeatureCache, FeatureSet
from brain_mri.datasets.shards import Column, ShardSet
from brain_mri.models.shards import ArrayShards
from brain_mri.spark.launchers import ProcessLauncher
from tests.stored_shards import store

COLUMNS = (Column("values_0", (2, 3), "float16"), Column("values_1", (), "float32"))


def numbers_and_means(index: NDArray[np.int64], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
    first = np.repeat(pixels[:, 0, 0, None], 6, axis=1).reshape(-1, 2, 3)
    return [first.astype(np.float16), (index % 1000).astype(np.float32)]


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    random = np.random.default_rng(4)
    pixels = random.integers(0, 255, (70, 32, 32)).astype(np.uint8)
    arrays = ArrayShards(pixels, np.arange(70, dtype=np.int64) % 2, ("no", "yes"))
    return store(arrays, str(tmp_path / "model_inputs.parquet"), row_group=16)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(str(tmp_path / "features"))


def made(cache: FeatureCache, shards: ShardSet, key: str = "abc") -> FeatureSet:
    columns = {key: dict(enumerate(COLUMNS))}
    return cache.make(columns, shards, numbers_and_means, ProcessLauncher(1))[key]


def test_one_pass_makes_several_sets(shards: ShardSet, cache: FeatureCache) -> None:
    wanted = {"one": {1: COLUMNS[1]}, "both": dict(enumerate(COLUMNS))}
    sets = cache.make(wanted, shards, numbers_and_means, ProcessLauncher(1))
    _, _, second = next(sets["one"].batches(100))
    _, _, first, same = next(sets["both"].batches(100))
    assert first.shape == (70, 2, 3)
    np.testing.assert_array_equal(second, same)


@pytest.mark.parametrize(("seed", "workers"), [(None, 1), (5, 1), (5, 3)])
def test_features_come_in_the_batches_of_their_scans(
    shards: ShardSet, cache: FeatureCache, seed: int | None, workers: int
) -> None:
    features = made(cache, shards)
    assert (features.rows, features.label_counts, features.classes) == (70, {0: 35, 1: 35}, ("no", "yes"))
    for rank in range(workers):
        pairs = zip(
            shards.batches(16, seed, rank, workers), features.batches(16, seed, rank, workers), strict=True
        )
        for (scan_ids, labels, pixels), (same_ids, same_labels, first, second) in pairs:
            np.testing.assert_array_equal(scan_ids, same_ids)
            np.testing.assert_array_equal(labels, same_labels)
            assert first.shape == (len(scan_ids), 2, 3)
            np.testing.assert_array_equal(first[:, 1, 2], pixels[:, 0, 0])
            np.testing.assert_array_equal(second, [int(each[:15], 16) % 1000 for each in scan_ids])


def test_a_set_is_found_again_and_a_part_of_one_is_not(shards: ShardSet, cache: FeatureCache) -> None:
    def fails(index: NDArray[np.int64], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        if len(index) < 16:  # the last row group
            raise ArithmeticError("no more")
        return numbers_and_means(index, pixels)

    with pytest.raises(ArithmeticError):
        cache.make({"abc": dict(enumerate(COLUMNS))}, shards, fails, ProcessLauncher(1))
    assert Path(cache.url, "abc").exists()
    assert cache.find("abc") is None
    made(cache, shards)
    found = cache.find("abc")
    assert found is not None and found.rows == 70


def test_what_was_not_used_for_longest_makes_room(shards: ShardSet, cache: FeatureCache) -> None:
    for key in ("first", "second", "third"):
        made(cache, shards, key)
    cache.find("first")
    size = sum(file.stat().st_size for file in Path(cache.url, "first").iterdir())
    assert not cache.make_room(size, limit=size, keep=["third"])
    assert cache.make_room(size, limit=3 * size + size // 2, keep=["third"])
    assert sorted(path.name for path in Path(cache.url).iterdir()) == ["first", "third"]


def test_values_of_another_shape_are_refused(shards: ShardSet, cache: FeatureCache) -> None:
    wrong = {"abc": {0: Column("values_0", (3, 2), "float16")}}
    with pytest.raises(Exception, match=r"float16 \(2, 3\) was computed where"):
        cache.make(wrong, shards, numbers_and_means, ProcessLauncher(1))
