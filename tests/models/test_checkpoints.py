from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.models.checkpoints import (
    TrainingState,
    find_state,
    pack_weights,
    save_state,
    training_key,
    unpack_weights,
)
from brain_mri.models.progress import EpochRecord, Progress
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import ArrayShards


def state(epochs: int = 1, key: str = "key") -> TrainingState:
    random = np.random.default_rng(epochs)
    record: EpochRecord = {
        "epoch": 1,
        "loss": 0.1 + 0.2,
        "accuracy": 1 / 3,
        "validation_loss": 0.5,
        "validation_accuracy": 0.25,
        "validation_macro_f1": 0.2,
        "learning_rate": 1e-3,
        "images_per_second": 10.0,
        "seconds": 2.0,
    }
    weights = [random.normal(size=(3, number)).astype(np.float32) for number in range(1, 13)]
    optimizer = [np.array(epochs, np.int64), *weights]
    progress = Progress(1e-3, 0.5, best_epoch=1)
    return TrainingState(key, (), (record,) * epochs, progress, 3.5, weights, optimizer, weights[::-1])


def test_a_state_comes_back_as_it_was() -> None:
    written = state()
    content = written.to_bytes()
    read = TrainingState.from_bytes(content)
    for name in ("key", "stages", "epochs", "progress", "seconds", "name"):
        assert getattr(read, name) == getattr(written, name), name
    for name in ("weights", "optimizer", "best_weights"):
        for one, two in zip(getattr(written, name), getattr(read, name), strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
    assert read.to_bytes() == content == state().to_bytes()


def test_weights_come_back_in_their_order_and_as_they_were() -> None:
    weights = state().weights
    content = pack_weights(weights)
    for one, two in zip(weights, unpack_weights(content), strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert pack_weights(weights) == content


def test_the_latest_is_found_and_one_before_it_is_kept(checkpoints: CheckpointStore) -> None:
    assert find_state(checkpoints, "key") is None
    for epochs in (9, 10, 11):
        save_state(checkpoints, state(epochs))
    assert checkpoints.names() == ["state-01-0010.npz", "state-01-0011.npz"]
    found = find_state(checkpoints, "key")
    assert found is not None
    assert len(found.epochs) == 11


@pytest.mark.parametrize("damaged", [b"", b"no archive", state(3).to_bytes()[:-200]])
def test_one_that_cannot_be_read_is_passed_over(
    checkpoints: CheckpointStore, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(checkpoints, state(2))
    checkpoints.save("state-01-0003.npz", damaged)
    found = find_state(checkpoints, "key")
    assert found is not None
    assert len(found.epochs) == 2
    assert "state-01-0003.npz cannot be read" in caplog.text


def test_those_of_another_training_are_removed(
    checkpoints: CheckpointStore, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(checkpoints, state(2))
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        assert find_state(checkpoints, "another") is None
    assert checkpoints.names() == []
    assert caplog.messages == [
        "Data, recipe or code are others than those of the last checkpoint: training starts anew."
    ]


@pytest.mark.tensorflow
def test_a_key_knows_data_recipe_and_weights(
    recipe: Recipe, train: ArrayShards, validation: ArrayShards, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"one")
    named = recipe.model_copy(update={"weights": str(weights)})
    keys = {
        training_key(recipe, train, validation),
        training_key(recipe, train, validation),
        training_key(recipe.model_copy(update={"seed": 8}), train, validation),
        training_key(recipe, replace(train, preparation="another"), validation),
        training_key(recipe, validation, validation),
        training_key(named, train, validation),
    }
    weights.write_bytes(b"another")
    keys.add(training_key(named, train, validation))
    assert len(keys) == 6
