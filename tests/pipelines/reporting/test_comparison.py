from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.io import Version
from numpy.typing import NDArray
from scipy.stats import binomtest

from brain_mri.datasets.shards import scan_numbers
from brain_mri.datasets.versions import FolderVersion, VersionedFolderDataset
from brain_mri.inference.classifier import Calibration
from brain_mri.inference.novelty import make_reference
from brain_mri.models.shards import ArrayShards
from brain_mri.pipelines.reporting.comparison import NotComparableError, compare_versions
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from tests.linear_graphs import linear_graph

CLASSES = ("left", "right")
SIZE = 32
PARAMETERS = ReportingParameters(compare="2026-01", bootstrap_replicates=200)


def ids(numbers: range) -> NDArray[np.str_]:
    return np.array([f"{number:064x}"[::-1] for number in numbers])


@pytest.fixture
def shards() -> ArrayShards:
    """Pictures with a bright half; of the last ten of forty the other half is named."""
    labels = np.arange(40, dtype=np.int64) % 2
    pixels = np.zeros((40, SIZE, SIZE), np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[:, SIZE // 2 * label : SIZE // 2 * (label + 1)] = 255
    labels[30:] = 1 - labels[30:]
    return ArrayShards(pixels, labels, CLASSES, "", ids(range(1, 41)))


def save(folder: Path, name: str, *, size: int = SIZE, seen: range = range(100, 120)) -> FolderVersion:
    """A version that names the brighter half."""
    weights = np.zeros((size, size, 2), np.float32)
    weights[:, : size // 2, 0] = weights[:, size // 2 :, 1] = 4 / (size * size * 255)
    calibration = Calibration(temperature=1.0, abstention_threshold=0, out_of_distribution_threshold=1)
    np.save(folder.parent / "seen.npy", scan_numbers(ids(seen)))
    VersionedFolderDataset(filepath=str(folder), version=Version(None, name)).save(
        {
            "graph.onnx": linear_graph(weights.reshape(-1, 2), size),
            "preparation.json": json.dumps({"image_size": size}).encode(),
            "calibration.json": calibration.model_dump_json().encode(),
            "reference_features.npy": make_reference(np.eye(2), 1).to_bytes(),
            "recipe.json": json.dumps({"classes": CLASSES}).encode(),
            "model_metadata.json": json.dumps({"recipe": "baseline"}).encode(),
            "seen_scans.npy": (folder.parent / "seen.npy").read_bytes(),
        }
    )
    return VersionedFolderDataset(filepath=str(folder), version=Version(name, None)).load()


def predictions(shards: ArrayShards, wrong: int) -> pd.DataFrame:
    """Of a version that is wrong on the first scans, in another order than theirs."""
    right = np.arange(40) >= wrong
    left = np.where((shards.labels == 0) == right, 0.8, 0.2)
    table = pd.DataFrame(
        {
            "scan_id": shards.scan_ids,
            "label": shards.labels,
            "calibrated_left": left,
            "calibrated_right": 1 - left,
            "duplicate_group": np.arange(40),
        }
    )
    return table.sort_values("scan_id", ignore_index=True)


def test_both_are_measured_on_the_same_scans(tmp_path: Path, shards: ArrayShards) -> None:
    other, own = save(tmp_path / "c", "2026-01"), save(tmp_path / "c", "2026-02")
    found = compare_versions(own, [other, own], predictions(shards, wrong=4), shards, PARAMETERS)
    assert found["metrics"]["2026-01"]["accuracy"] == 0.75
    assert found["metrics"]["2026-02"]["accuracy"] == 0.9
    assert found["difference"] == pytest.approx(0.15)
    assert (found["only_this"], found["only_other"]) == (10, 4)
    assert found["p_value"] == pytest.approx(binomtest(10, 14).pvalue)
    low, high = found["interval"]
    assert low < 0.15 < high
    assert "differs by +15.00 points" in found["paragraphs"][0]
    assert found["tables"][0]["rows"][0] == ["accuracy", "0.9000", "0.7500"]


def test_a_version_that_has_seen_a_test_scan_is_refused(tmp_path: Path, shards: ArrayShards) -> None:
    other, own = save(tmp_path / "c", "2026-01", seen=range(39, 60)), save(tmp_path / "c", "2026-02")
    with pytest.raises(NotComparableError, match="on 2 of the 40 scans of this test split"):
        compare_versions(own, [other, own], predictions(shards, 4), shards, PARAMETERS)


def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path: Path, shards: ArrayShards) -> None:
    other, own = save(tmp_path / "c", "2026-01", size=64), save(tmp_path / "c", "2026-02")
    table = predictions(shards, 4)
    with pytest.raises(NotComparableError, match="prepared otherwise"):
        compare_versions(own, [other, own], table, shards, PARAMETERS)
    unknown = PARAMETERS.model_copy(update={"compare": "2025-12"})
    with pytest.raises(NotComparableError, match="there are 2026-01, 2026-02"):
        compare_versions(own, [other, own], table, shards, unknown)
    same = PARAMETERS.model_copy(update={"compare": "2026-02"})
    with pytest.raises(NotComparableError, match="is the version of this report"):
        compare_versions(own, [other, own], table, shards, same)
    assert compare_versions(own, [own], table, shards, ReportingParameters()) == {}
