"""What the project promises about accuracy, on whole runs of its own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brain_mri.imaging.phantom import write_phantom_folder

pytestmark = [pytest.mark.spark, pytest.mark.tensorflow]

REPOSITORY = Path(__file__).resolve().parents[1]


def _metrics_of_a_run(storage: Path, *words: str) -> dict[str, Any]:
    """Run `kedro run` on a storage root of its own and return its metrics."""
    environment = {**os.environ, "BRAIN_MRI_STORAGE": str(storage), "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("BRAIN_MRI_DATA", None)
    result = subprocess.run(
        [sys.executable, "-m", "kedro", "run", *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(json.loads((storage / "08_reporting" / "metrics.json").read_text()))


def test_the_default_run_on_phantoms_reaches_0_9_and_looks_at_the_lesions(tmp_path: Path) -> None:
    source = tmp_path / "phantom"
    write_phantom_folder(source, seed=20)
    metrics = _metrics_of_a_run(tmp_path / "storage", f"--params=ingestion.source={source}")
    assert metrics["accuracy"] >= 0.9
    assert min(metrics[f"recall_{name}"] for name in ("glioma", "meningioma", "notumor", "pituitary")) >= 0.75
    explanations = json.loads((tmp_path / "storage" / "08_reporting" / "explanations.json").read_text())
    game = explanations["pointing_game"]
    assert set(game["hits"]["HiResCAM"]) == {"glioma", "meningioma", "pituitary"}
    for name, hits in game["hits"]["HiResCAM"].items():
        assert hits >= 0.7
        assert game["chance"][name] < 0.55


@pytest.mark.slow
@pytest.mark.realdata
def test_the_baseline_reaches_0_92_on_real_scans_split_without_leaks(
    tmp_path: Path, real_data: Path, real_weights: Path
) -> None:
    metrics = _metrics_of_a_run(
        tmp_path,
        f"--params=ingestion.source={real_data},training.recipe=baseline,"
        f"training.backbone=mobilenetv2,training.weights={real_weights}",
    )
    assert metrics["accuracy"] >= 0.92
