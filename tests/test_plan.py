"""What a run says before it starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from brain_mri import plan
from brain_mri.datasets.source import RawFolder, survey_source
from brain_mri.models.estimate import processor_cores
from brain_mri.plan import count_gpus, describe_run


def describe(parameters: dict[str, Any], raw: Path, *, trains: bool = True) -> str:
    survey = survey_source(RawFolder(str(raw)), parameters["ingestion"]["source"])
    return describe_run(survey, parameters, "data", trains=trains)


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own, and where the driver's tool would lie on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin" / "nvidia-smi"


def install(tool: Path, script: str) -> None:
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)


def test_it_names_source_backbone_device_minutes_and_disk(
    parameters: dict[str, Any], tmp_path: Path, nvidia: Path
) -> None:
    line = describe(parameters, tmp_path)
    for part in (
        "train compact (recipe best)",
        "2000 synthetic phantoms",
        f"device: {processor_cores()} CPU core",
        " minutes and 0.1 GB under data",
    ):
        assert part in line
    install(nvidia, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
    assert "device: 1 GPU; at most about " in describe(parameters, tmp_path)
    assert "device: 1 GPU" not in describe(parameters, tmp_path, trains=False)
    parameters["training"] |= {"distribution": "synchronous"}
    assert f"device: {processor_cores()} CPU core" in describe(parameters, tmp_path), "workers asked for none"
    parameters["training"] |= {"worker_gpus": 1}
    assert "device: 2 GPUs; " in describe(parameters, tmp_path)


def test_gpus_are_those_that_the_driver_lists_and_the_user_allows(
    nvidia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_gpus() == 0
    install(nvidia, "echo 'NVIDIA-SMI has failed'; exit 9")
    assert count_gpus() == 0
    install(nvidia, "test \"$1\" = -L && printf 'GPU 0: A\\n  MIG 1g.5gb\\nGPU 1: B\\n'")
    assert count_gpus() == 2
    for allowed, expected in (("-1", 0), ("", 0), ("1", 1), ("0,-1,1", 1), ("GPU-8932f937,GPU-1b2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        assert count_gpus() == expected, allowed


def test_a_random_start_is_left_to_training_to_warn_of(
    parameters: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parameters["training"] |= {"backbone": "resnet50", "weights": None}
    assert "train resnet50" in describe(parameters, tmp_path)
    assert caplog.records == []


def test_it_counts_the_users_scans(parameters: dict[str, Any], tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "mine" / "glioma" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    parameters["ingestion"]["source"] = str(tmp_path / "mine")
    assert "About to ingest 3 scans" in describe(parameters, tmp_path, trains=False)
    line = describe(parameters, tmp_path)
    assert f"train resnet50 (recipe best) on 3 scans in {tmp_path / 'mine'}" in line
    table = tmp_path / "scans.csv"
    table.write_text("path,label\nmine/glioma/0.jpg,glioma\n", encoding="utf-8")
    parameters["ingestion"]["source"] = str(table)
    assert "About to ingest 1 scan " in describe(parameters, tmp_path, trains=False)


def test_what_frozen_layers_compute_once_shortens_the_estimate(
    parameters: dict[str, Any], tmp_path: Path, nvidia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "processor_cores", lambda: 2)
    parameters["training"] |= {"backbone": "resnet50", "weights": None, "recipe": "baseline"}
    minutes = {}
    for copies in (None, 0):
        parameters["training"] |= {"augmented_copies": copies}
        (minutes[copies],) = map(int, re.findall(r"about (\d+) minutes", describe(parameters, tmp_path)))
    assert 1 < minutes[0] < minutes[None] / 1.5
