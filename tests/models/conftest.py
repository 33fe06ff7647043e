"""Tiny inputs for the tests of `models`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.shards import ArrayShards

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def bright_quadrants(rows: int, seed: int) -> ArrayShards:
    """64×64 noise with one bright quadrant; its place, top or bottom and bright or dark, is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows, dtype=np.int64) % 4
    pixels = random.integers(90, 130, (rows, 64, 64))
    for image, label in zip(pixels, labels, strict=True):
        place = slice(8, 28) if label < 2 else slice(36, 56)
        image[place, 16:48] += 100 if label % 2 else -80
    return ArrayShards(pixels.astype(np.uint8), labels, CLASSES)


@pytest.fixture(scope="session")
def train() -> ArrayShards:
    return bright_quadrants(58, seed=1)  # not a multiple of the batch size


@pytest.fixture(scope="session")
def validation() -> ArrayShards:
    return bright_quadrants(24, seed=2)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    compact = make_recipe(
        "baseline", backbone="compact", weights=None, image_size=64, classes=CLASSES, seed=7, epochs=2
    )
    return compact.model_copy(update={"early_stopping_patience": 5, "plateau_patience": 3})


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(str(tmp_path / "checkpoints"))
