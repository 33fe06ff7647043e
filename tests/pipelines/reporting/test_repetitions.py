from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kedro.io import Version
from numpy.typing import NDArray

from brain_mri.datasets.versions import FolderVersion, FolderVersionsDataset, VersionedFolderDataset
from brain_mri.inference.classifier import Calibration
from brain_mri.inference.novelty import make_reference
from brain_mri.models.recipe import make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.repetitions import compare_repetitions, find_repetitions
from tests.linear_graphs import linear_graph

CLASSES = ("left", "right")
SIZE = 32


def save(
    folder: Path,
    name: str,
    seed: int,
    *,
    weights: NDArray[np.float32],
    preparation: str = "these",
    **changes: float,
) -> FolderVersion:
    recipe = make_recipe(
        "baseline", backbone="compact", weights=None, image_size=SIZE, classes=CLASSES, seed=seed
    ).model_copy(update=changes)
    calibration = Calibration(temperature=1.0, abstention_threshold=0, out_of_distribution_threshold=0)
    dataset = VersionedFolderDataset(filepath=str(folder), version=Version(None, name))
    dataset.save(
        {
            "preparation.json": json.dumps({"image_size": SIZE}).encode(),
            "reference_features.npy": make_reference(np.eye(2), 1).to_bytes(),
            "graph.onnx": linear_graph(weights, SIZE),
            "recipe.json": recipe.model_dump_json().encode(),
            "calibration.json": calibration.model_dump_json().encode(),
            "model_metadata.json": json.dumps({"data": {"preparation": preparation}}).encode(),
        }
    )
    return VersionedFolderDataset(filepath=str(folder), version=Version(name, None)).load()


@pytest.fixture
def shards() -> ArrayShards:
    """Pictures with a bright half; of the last of ten the other half is named."""
    labels = np.arange(10, dtype=np.int64) % 2
    pixels = np.zeros((10, SIZE, SIZE), np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[:, SIZE // 2 * label : SIZE // 2 * (label + 1)] = 255
    labels[9] = 0
    return ArrayShards(pixels, labels, CLASSES)


def halves(strength: float) -> NDArray[np.float32]:
    """Weights that answer with the brighter half."""
    weights = np.zeros((SIZE, SIZE, 2), np.float32)
    weights[:, : SIZE // 2, 0] = weights[:, SIZE // 2 :, 1] = strength / (SIZE * SIZE * 255)
    return weights.reshape(-1, 2)


def test_versions_that_differ_by_their_seed_alone_are_repetitions(tmp_path: Path) -> None:
    weights = halves(1)
    save(tmp_path, "2026-01", 1, weights=weights)
    latest = save(tmp_path, "2026-02", 1, weights=weights)
    save(tmp_path, "2026-03", 2, weights=weights, preparation="others")
    save(tmp_path, "2026-04", 3, weights=weights, label_smoothing=0.1)
    own = save(tmp_path, "2026-05", 4, weights=weights)
    versions = FolderVersionsDataset(filepath=str(tmp_path)).load()
    assert [version.version[-2:] for version in versions] == ["01", "02", "03", "04", "05"]
    found = find_repetitions(own, versions)
    assert {seed: version.version for seed, version in found.items()} == {1: latest.version, 4: own.version}


def test_mean_spread_and_ensemble_are_of_all_seeds(tmp_path: Path, shards: ArrayShards) -> None:
    save(tmp_path, "2026-01", 1, weights=-halves(1))  # always wrong, but not so sure
    own = save(tmp_path, "2026-02", 2, weights=halves(4))
    versions = FolderVersionsDataset(filepath=str(tmp_path)).load()
    found = compare_repetitions(own, versions, shards, ReportingParameters())
    assert found["single"]["accuracy"] == pytest.approx(0.9)
    assert [row["accuracy"] for row in found["seeds"]] == pytest.approx([0.1, 0.9])
    assert [row["seed"] for row in found["seeds"]] == [1, 2]
    assert found["mean"]["accuracy"] == pytest.approx(0.5)
    assert found["spread"]["accuracy"] == pytest.approx(0.8 / np.sqrt(2))
    assert found["ensemble"]["accuracy"] == pytest.approx(0.9)  # the surer one decides
    assert found["ensemble"]["log_loss"] > found["single"]["log_loss"]


def test_the_mirror_image_counts_as_much_as_the_scan(tmp_path: Path, shards: ArrayShards) -> None:
    own = save(tmp_path, "2026-01", 1, weights=halves(4))
    found = compare_repetitions(own, [own], shards, ReportingParameters())
    assert found["mean"] is found["spread"] is found["ensemble"] is None
    assert found["mirrored"]["log_loss"] == pytest.approx(np.log(2), rel=1e-4)  # left is right in a mirror
