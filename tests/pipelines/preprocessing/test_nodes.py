"""Preprocessing on a real Spark session: what the tasks write, who decodes, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from brain_mri.datasets import PackedScansDataset, PreparedPartsDataset, ShardSet, SparkShardsDataset
from brain_mri.datasets.prepared import PreparedParts
from brain_mri.datasets.scans import Block, Packing
from brain_mri.datasets.source import Source, list_files
from brain_mri.imaging.decode import RefusedImage
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.pipelines.preprocessing.nodes import (
    ModelInputError,
    _busy_seconds,
    check_model_inputs,
    draw_samples,
    prepare_scans,
    publish_model_inputs,
)
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.spark.launchers import ProcessLauncher

pytestmark = pytest.mark.spark

PARAMETERS = PreprocessingParameters(image_size=64, crop_to_head=False, clahe=False)
CLASSES = ("glioma", "notumor")
SPLITS = ("train", "validation", "test")
SCANS = 90


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ninety pictures, packed, and their manifest."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "source").mkdir()
    rows = []
    for number in range(SCANS):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 70 + number % 5), dtype=np.uint8)
        content = cv2.imencode(".jpg", pixels)[1].tobytes()
        (folder / "source" / f"{number}.jpg").write_bytes(content)
        label, split = CLASSES[number % 2], SPLITS[0 if number < 60 else 1 + number % 4 // 2]
        rows.append((hashlib.sha256(content).hexdigest(), label, split, "accepted", content))
    manifest = pd.DataFrame(rows, columns=["scan_id", "label", "split", "status", "content"])
    files = list_files(Source("folder", str(folder / "source"), "test"))
    rows_of_files = list(zip(files["path"], files["url"], strict=True))
    blocks = tuple(Block(number, tuple(rows_of_files[number::4])) for number in range(4))
    PackedScansDataset(filepath=str(folder / "scans.parquet")).save(Packing(blocks, ProcessLauncher(1)))
    counts = manifest.groupby(["split", "label"]).size()
    metadata = {
        "classes": list(CLASSES),
        "counts": {split: {name: int(counts.get((split, name), 0)) for name in CLASSES} for split in SPLITS},
        "seed": 1,
        "source": {"synthetic": True},
    }
    return {"scans": str(folder / "scans.parquet"), "manifest": manifest, "metadata": metadata}


def _prepare(packed: dict[str, Any], target: Path) -> tuple[PreparedParts, dict[str, ShardSet]]:
    scans = PackedScansDataset(filepath=packed["scans"]).load()
    pattern = str(target / "model_inputs_{split}.parquet")
    dataset = PreparedPartsDataset(filepath=str(target / "prepared_parts"), parts=pattern)
    dataset.save(prepare_scans(scans, packed["manifest"], packed["metadata"], PARAMETERS))
    parts, sets = dataset.load(), {}
    for split, summary in zip(SPLITS, publish_model_inputs(parts), strict=True):
        url = pattern.format(split=split)
        SparkShardsDataset(filepath=url).save(summary)
        sets[split] = ShardSet(url)
    return parts, sets


@pytest.fixture(scope="module")
def written(
    packed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, spark: Any
) -> tuple[PreparedParts, dict[str, ShardSet]]:
    """The records and the three sets, written once for all tests here."""
    return _prepare(packed, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def parts(written: tuple[PreparedParts, dict[str, ShardSet]]) -> PreparedParts:
    return written[0]


@pytest.fixture(scope="module")
def prepared(written: tuple[PreparedParts, dict[str, ShardSet]]) -> dict[str, ShardSet]:
    return written[1]


def test_tasks_write_what_the_image_function_gives(
    packed: dict[str, Any], prepared: dict[str, ShardSet]
) -> None:
    manifest = packed["manifest"].set_index("scan_id")
    seen: list[str] = []
    for split, shards in prepared.items():
        scan_ids, labels, pixels = shards.arrays()
        for scan_id, label, image in zip(scan_ids.tolist(), labels, pixels, strict=True):
            row = manifest.loc[scan_id]
            assert (row["split"], CLASSES.index(row["label"])) == (split, label)
            np.testing.assert_array_equal(image, prepare_scan(row["content"], PrepareOptions(image_size=64)))
        seen += scan_ids.tolist()
    assert sorted(seen) == sorted(manifest.index)
    assert len(prepared["train"].summary["parts"]) > 1, "several tasks must have taken part"


def test_spark_reads_what_its_tasks_wrote(prepared: dict[str, ShardSet], spark: Any) -> None:
    frame = SparkShardsDataset(filepath=prepared["test"].url).load()
    assert frame.columns == ["scan_id", "label", "pixels"]
    assert sorted(row.scan_id for row in frame.select("scan_id").collect()) == list(
        prepared["test"].arrays()[0]
    )


def test_executors_decode_and_the_driver_does_not(
    packed: dict[str, Any], tmp_path: Path, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the driver decoded an image")

    for name in ("imdecode", "imread"):
        monkeypatch.setattr(cv2, name, refuse)
    with pytest.raises(RefusedImage, match="driver decoded"):
        prepare_scan(packed["manifest"]["content"].iloc[0], PrepareOptions())
    jobs_before = len(_jobs(spark))
    parts, sets = _prepare(packed, tmp_path)
    check_model_inputs(parts, *sets.values(), packed["metadata"], PARAMETERS)
    draw_samples(sets["train"], packed["metadata"])
    assert sum(shards.rows for shards in sets.values()) == SCANS

    jobs = _jobs(spark)[jobs_before:]
    assert [dict(job["Properties"])["spark.job.description"] for job in jobs] == ["prepare_piece"] * len(jobs)
    stages = {stage for job in jobs for stage in job["Stage IDs"]}
    tasks = [
        event
        for event in _events(spark)
        if event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages
    ]
    assert len(tasks) == len(parts.records) > 1
    assert all(task["Task End Reason"]["Reason"] == "Success" for task in tasks)
    assert sum(record["rows"] for record in parts.records) == SCANS
    assert os.getpid() not in {record["process"] for record in parts.records}
    busy = sum(record["prepare"] for record in parts.records)
    assert busy <= sum(task["Task Metrics"]["Executor Run Time"] for task in tasks) / 1000


def test_running_twice_gives_the_same_content(
    packed: dict[str, Any], prepared: dict[str, ShardSet], tmp_path: Path, spark: Any
) -> None:
    for split, again in _prepare(packed, tmp_path)[1].items():
        assert [part["sha256"] for part in again.summary["parts"]] == [
            part["sha256"] for part in prepared[split].summary["parts"]
        ]
        for first, second in zip(prepared[split].arrays(), again.arrays(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_check_sums_up_the_partitions(
    packed: dict[str, Any], parts: PreparedParts, prepared: dict[str, ShardSet]
) -> None:
    report = check_model_inputs(parts, *prepared.values(), packed["metadata"], PARAMETERS)
    assert report["images"] == SCANS
    assert report["bytes"] == SCANS * 64 * 64
    for split, entry in report["splits"].items():
        assert (
            sum(entry["images_per_partition"])
            == entry["rows"]
            == sum(packed["metadata"]["counts"][split].values())
        )
    assert report["images_per_second"] > 0
    stages = ("read_seconds", "prepare_seconds", "write_seconds")
    assert 0 < sum(report[stage] for stage in stages) <= report["elapsed_seconds"] * len(parts.records)


def test_pauses_between_runs_are_no_work() -> None:
    assert _busy_seconds([(10, 12), (11, 13), (100, 101), (100.5, 100.7)]) == 4


def test_a_scan_that_got_lost_is_noticed(
    packed: dict[str, Any], parts: PreparedParts, prepared: dict[str, ShardSet]
) -> None:
    metadata = json.loads(json.dumps(packed["metadata"]))
    metadata["counts"]["validation"]["glioma"] += 1
    with pytest.raises(ModelInputError, match="model_inputs_validation: scans by class"):
        check_model_inputs(parts, *prepared.values(), metadata, PARAMETERS)
    other_size = PARAMETERS.model_copy(update={"image_size": 32})
    with pytest.raises(ModelInputError, match="image size: found 64, expected 32"):
        check_model_inputs(parts, *prepared.values(), packed["metadata"], other_size)


def _events(spark: Any) -> list[dict[str, Any]]:
    folder = Path(spark.conf.get("spark.eventLog.dir").removeprefix("file:"))
    [log] = [path for path in folder.iterdir() if path.is_file() and not path.name.endswith(".crc")]
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def _jobs(spark: Any) -> list[dict[str, Any]]:
    return [event for event in _events(spark) if event["Event"] == "SparkListenerJobStart"]
