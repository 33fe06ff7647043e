"""Training behind the cut, on what tasks have computed: the same as on images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain_mri.datasets import CheckpointStore, FeatureCache
from brain_mri.datasets.shards import ShardSet
from brain_mri.imaging.phantom.draw import draw_phantom
from brain_mri.models.backbones import build_backbone
from brain_mri.models.features import FeatureDtype
from brain_mri.models.loop import train_classifier
from brain_mri.models.recipe import HeadBlock, Recipe, make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.pipelines.training.caching import cache_features
from brain_mri.spark.launchers import ProcessLauncher
from tests.stored_shards import store

pytestmark = pytest.mark.tensorflow

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
GIB = 2**30


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    folder, random = tmp_path_factory.mktemp("shards"), np.random.default_rng(8)
    sets = []
    for name, rows in (("train", 42), ("validation", 12)):
        labels = np.arange(rows, dtype=np.int64) % 4
        pixels = random.integers(0, 120, (rows, 64, 64)) + 30 * labels[:, None, None]
        sets.append(store(ArrayShards(pixels.astype(np.uint8), labels, CLASSES), str(folder / name), 13))
    return sets[0], sets[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Paths of weights files: random kernels, with statistics of batch normalisation as training leaves them.

    Without those, what random layers compute of an image is next to nothing, and everything equals all else.
    """
    import keras

    folder = tmp_path_factory.mktemp("weights")

    def write(backbone: str) -> str:
        path = folder / f"{backbone}.weights.h5"
        if not path.exists():
            keras.utils.set_random_seed(1)
            model = build_backbone(backbone, None, 64)
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = 0.0
            images = np.random.default_rng(3).normal(size=(16, 64, 64, 3)).astype(np.float32)
            model(images * (60 if backbone == "resnet50" else 1), training=True)
            model.save_weights(path)
        return str(path)

    return write


def small(backbone: str, copies: int, weights: str | None = None, seed: int = 5) -> Recipe:
    """Two epochs a stage, without batch normalisation in the head: it magnifies rounding in small batches."""
    recipe = make_recipe(
        "baseline", backbone=backbone, weights=weights, image_size=64, classes=CLASSES, seed=seed, epochs=2,
        augmented_copies=copies,
    )  # fmt: skip
    return recipe.model_copy(update={"head": (HeadBlock(units=16, dropout=0.3),)})


class Unread(ShardSet):
    """A set of which training may know everything but the pixels."""

    def tensorflow(self, *arguments: Any, **named: Any) -> Any:
        raise AssertionError("Images were read, though what frozen layers make of them is there.")


def largest_differences(one: Any, other: Any) -> tuple[float, float]:
    """Of losses, and of weights; relative where they are above one."""
    losses = [
        (epoch[name], same[name])
        for stage, another in zip(one[1]["stages"], other[1]["stages"], strict=True)
        for epoch, same in zip(stage["epochs"], another["epochs"], strict=True)
        for name in ("loss", "validation_loss")
    ]
    weights = zip(one[0].get_weights(), other[0].get_weights(), strict=True)

    def largest(pairs: Iterable[tuple[Any, Any]]) -> float:
        return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1))) for a, b in pairs)

    return largest(losses), largest(weights)


@pytest.mark.parametrize(
    ("backbone", "copies", "dtype"),
    [
        ("mobilenetv2", 0, "float32"),
        pytest.param("mobilenetv2", 2, "float32", marks=pytest.mark.slow),
        pytest.param("mobilenetv2", 0, "float16", marks=pytest.mark.slow),
        pytest.param("resnet50", 0, "float32", marks=pytest.mark.slow),
    ],
)
def test_cached_training_equals_uncached(  # noqa: PLR0917 - what is varied
    stored: tuple[ShardSet, ShardSet],
    weights: Callable[[str], str],
    tmp_path: Path,
    backbone: str,
    copies: int,
    dtype: FeatureDtype,
) -> None:
    """Random layers, fifty of them, magnify what the engine rounds otherwise than TensorFlow."""
    recipe = small(backbone, copies, weights(backbone))
    assert max(differences_of_cached(recipe, stored, tmp_path, dtype)) < 1e-3


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("dtype", "of_losses", "of_weights"), [("float32", 1e-5, 2e-5), ("float16", 1e-3, 1e-3)]
)
def test_with_trained_weights_they_are_equal_but_for_rounding(
    real_weights: Path, tmp_path: Path, dtype: FeatureDtype, of_losses: float, of_weights: float
) -> None:
    sets = [
        store(phantoms(rows, first), str(tmp_path / name), 64)
        for name, rows, first in (("train", 160, 0), ("validation", 24, 1000))
    ]
    recipe = small("mobilenetv2", 0, str(real_weights)).model_copy(update={"image_size": 128})
    losses, weights = differences_of_cached(recipe, (sets[0], sets[1]), tmp_path, dtype)
    assert losses < of_losses
    assert weights < of_weights


def phantoms(rows: int, first: int) -> ArrayShards:
    labels = np.arange(rows, dtype=np.int64) % 4
    drawn = [draw_phantom(CLASSES[label], first + number, size=128) for number, label in enumerate(labels)]
    return ArrayShards(np.stack([phantom.pixels for phantom in drawn]), labels, CLASSES)


def differences_of_cached(
    recipe: Recipe, stored: tuple[ShardSet, ShardSet], folder: Path, dtype: FeatureDtype
) -> tuple[float, float]:
    cache = FeatureCache(str(folder / "features"))
    features = cache_features(recipe, *stored, cache, ProcessLauncher(1), GIB, dtype)
    assert sorted(features) == [0, 1]
    assert all(len(stage.train) == recipe.augmentation.views for stage in features.values())
    uncached = train_classifier(recipe, *stored, CheckpointStore(str(folder / "uncached")))
    train, validation = (Unread(each.url) for each in stored)
    checkpoints = CheckpointStore(str(folder / "cached"))
    cached = train_classifier(recipe, train, validation, checkpoints, features)
    return largest_differences(cached, uncached)


@pytest.mark.slow
def test_a_second_run_finds_what_the_first_computed(
    stored: tuple[ShardSet, ShardSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, launcher = FeatureCache(str(tmp_path / "features")), ProcessLauncher(1)
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        first = cache_features(small("mobilenetv2", 0), *stored, cache, launcher, GIB, "float32")
        assert sum("of 54 images is cached" in line for line in caplog.messages) == 1
        caplog.clear()
        again = cache_features(small("mobilenetv2", 0), *stored, cache, launcher, GIB, "float32")
        assert sum("is in the cache" in line for line in caplog.messages) == 2
        assert again == first
        caplog.clear()
        cache_features(small("mobilenetv2", 0, seed=6), *stored, cache, launcher, GIB, "float32")
        assert sum("of 54 images is cached" in line for line in caplog.messages) == 1, "other weights"


def test_what_does_not_fit_is_not_cached(
    stored: tuple[ShardSet, ShardSet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(str(tmp_path / "features"))
    pooled_only = 54 * 1280 * 4 * 2
    with caplog.at_level(logging.WARNING, logger="brain_mri"):
        features = cache_features(
            small("mobilenetv2", 0), *stored, cache, ProcessLauncher(1), pooled_only, "float32"
        )
    assert sorted(features) == [0]
    assert "'fine-tuning'" in caplog.text and "training.cache_gib" in caplog.text


def test_views_that_are_all_new_are_not_cached(stored: tuple[ShardSet, ShardSet], tmp_path: Path) -> None:
    recipe = make_recipe(
        "baseline", backbone="mobilenetv2", weights=None, image_size=64, classes=CLASSES, seed=5
    )
    cache = FeatureCache(str(tmp_path / "features"))
    assert cache_features(recipe, *stored, cache, ProcessLauncher(1), GIB, "float16") == {}
    assert not Path(cache.url).exists()
