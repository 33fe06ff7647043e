"""What a run says before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from brain_mri.datasets.source import RawFolder, SourceError
from brain_mri.plan import describe_run

CONF = Path(__file__).resolve().parents[1] / "conf" / "base"


@pytest.fixture
def parameters() -> dict[str, Any]:
    """What the configuration files hold."""
    values: dict[str, Any] = {}
    for path in CONF.glob("parameters*.yml"):
        values |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def test_it_names_source_backbone_device_minutes_and_disk(parameters: dict[str, Any], tmp_path: Path) -> None:
    line = describe_run(RawFolder(str(tmp_path)), parameters, "data", trains=True)
    for part in (
        "train compact (recipe baseline)",
        "2000 synthetic phantoms",
        "device: ",
        " minutes and 0.1 GB under data",
    ):
        assert part in line


def test_it_counts_the_users_scans(parameters: dict[str, Any], tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "mine" / "glioma" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    parameters["ingestion"]["source"] = str(tmp_path / "mine")
    line = describe_run(RawFolder(str(tmp_path)), parameters, "data", trains=True)
    only_ingested = describe_run(RawFolder(str(tmp_path)), parameters, "data", trains=False)
    assert "About to ingest 3 scans" in only_ingested
    assert f"train resnet50 (recipe baseline) on 3 scans in {tmp_path / 'mine'}" in line
    parameters["ingestion"]["source"] = str(tmp_path / "other")
    with pytest.raises(SourceError):
        describe_run(RawFolder(str(tmp_path)), parameters, "data", trains=True)
