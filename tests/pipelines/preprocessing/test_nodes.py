"""Preprocessing on a real Spark session: what the tasks write, who decodes, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from brain_mri.datasets import PackedScansDataset, ShardSet, SparkScansDataset, SparkShardsDataset
from brain_mri.datasets.scans import Block, Packing
from brain_mri.datasets.source import Source, list_files
from brain_mri.imaging.decode import RefusedImage
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.pipelines.preprocessing.nodes import (
    ModelInputError,
    check_model_inputs,
    draw_samples,
    prepare_model_inputs,
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


def _prepare(packed: dict[str, Any], target: Path, spark: Any) -> dict[str, ShardSet]:
    scans = SparkScansDataset(filepath=packed["scans"]).load()
    results = prepare_model_inputs(scans, packed["manifest"], packed["metadata"], PARAMETERS)
    sets = {}
    for split, result in zip(SPLITS, results, strict=True):
        url = str(target / f"model_inputs_{split}.parquet")
        SparkShardsDataset(filepath=url).save(result)
        sets[split] = ShardSet(url)
    return sets


@pytest.fixture(scope="module")
def prepared(
    packed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, spark: Any
) -> dict[str, ShardSet]:
    """The three sets, written once for all tests here."""
    return _prepare(packed, tmp_path_factory.mktemp("prepared"), spark)


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
    spark.sparkContext.setJobGroup("decode", "decode")
    sets = _prepare(packed, tmp_path, spark)
    check_model_inputs(*sets.values(), packed["metadata"], PARAMETERS)
    draw_samples(sets["train"], packed["metadata"])
    assert sum(shards.rows for shards in sets.values()) == SCANS

    events = _events(spark)
    jobs = [
        event for event in events if event["Event"] == "SparkListenerJobStart" and _group(event) == "decode"
    ]
    stages = {stage for job in jobs for stage in job["Stage IDs"]}
    tasks = [
        event for event in events if event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages
    ]
    records = sum(task["Task Metrics"]["Input Metrics"]["Records Read"] for task in tasks)
    assert all(task["Task End Reason"]["Reason"] == "Success" for task in tasks)
    assert records >= SCANS, "executors must have read every scan"


def test_running_twice_gives_the_same_content(
    packed: dict[str, Any], prepared: dict[str, ShardSet], tmp_path: Path, spark: Any
) -> None:
    for split, again in _prepare(packed, tmp_path, spark).items():
        for first, second in zip(prepared[split].arrays(), again.arrays(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_check_sums_up_the_partitions(packed: dict[str, Any], prepared: dict[str, ShardSet]) -> None:
    report = check_model_inputs(*prepared.values(), packed["metadata"], PARAMETERS)
    assert report["images"] == SCANS
    assert report["bytes"] == SCANS * 64 * 64
    for split, entry in report["splits"].items():
        assert (
            sum(entry["images_per_partition"])
            == entry["rows"]
            == sum(packed["metadata"]["counts"][split].values())
        )
    assert report["images_per_second"] > 0


def test_a_scan_that_got_lost_is_noticed(packed: dict[str, Any], prepared: dict[str, ShardSet]) -> None:
    metadata = json.loads(json.dumps(packed["metadata"]))
    metadata["counts"]["validation"]["glioma"] += 1
    with pytest.raises(ModelInputError, match="model_inputs_validation: scans by class"):
        check_model_inputs(*prepared.values(), metadata, PARAMETERS)
    other_size = PARAMETERS.model_copy(update={"image_size": 32})
    with pytest.raises(ModelInputError, match="image size: found 64, expected 32"):
        check_model_inputs(*prepared.values(), packed["metadata"], other_size)


def _events(spark: Any) -> list[dict[str, Any]]:
    folder = Path(spark.conf.get("spark.eventLog.dir").removeprefix("file:"))
    [log] = [path for path in folder.iterdir() if path.is_file() and not path.name.endswith(".crc")]
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def _group(event: dict[str, Any]) -> str | None:
    return dict(event.get("Properties") or {}).get("spark.jobGroup.id")
