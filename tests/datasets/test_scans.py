"""Packing scans: every file accounted for, copies stored once, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from kedro.io import DatasetError

from brain_mri.datasets.packing import Block, Packing, plan_blocks
from brain_mri.datasets.scans import PackedScansDataset, SparkScansDataset
from brain_mri.datasets.shards import ShardSet, model_input_schema
from brain_mri.datasets.source import Source, list_files
from brain_mri.datasets.spark_shards import SparkShardsDataset
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.spark.batches import prepared_scans
from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten pictures, two copies of the first, and three files that cannot be used."""
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(10):
        (folder / f"{seed}.png").write_bytes(_picture(seed))
    for name in ("copy-a.png", "copy-b.png"):
        (folder / name).write_bytes(_picture(0))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"no picture")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    return folder


def _pack(source: Path, target: Path, blocks: int = 1) -> PackedScansDataset:
    files = list_files(Source("folder", str(source), "test"))
    dataset = PackedScansDataset(filepath=str(target / "scans.parquet"))
    plan = plan_blocks(files) if blocks == 1 else _cut(files, blocks)
    dataset.save(Packing(plan, ProcessLauncher(workers=1)))
    return dataset


def _cut(files: pd.DataFrame, blocks: int) -> tuple[Block, ...]:
    rows = list(zip(files["path"], files["url"], strict=True))
    return tuple(Block(number, tuple(rows[number::blocks])) for number in range(blocks))


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_every_file_is_accounted_for_and_every_scan_is_stored_once(
    source: Path, tmp_path: Path, blocks: int
) -> None:
    packed = _pack(source, tmp_path, blocks).load()
    inspections = packed.inspections()
    assert inspections["path"].tolist() == sorted(path.name for path in source.iterdir())
    reasons = dict(zip(inspections["path"], inspections["reason"], strict=True))
    refused = {"empty.jpg": "empty", "gone.jpg": "unreadable", "text.jpg": "not_an_image"}
    assert {path: reason for path, reason in reasons.items() if reason} == refused
    stored = pq.read_table(tmp_path / "scans.parquet", columns=["scan_id", "content"]).to_pydict()
    assert sorted(stored["scan_id"]) == sorted(
        set(inspections.loc[inspections["status"] == "accepted", "scan_id"])
    )
    assert sorted(stored["content"]) == sorted(_picture(seed) for seed in range(10))
    assert sum(record["rows"] for record in packed.stats()) == 10


def test_what_was_refused_keeps_its_bytes(source: Path, tmp_path: Path) -> None:
    packed = _pack(source, tmp_path).load()
    assert packed.refused_contents() == {"empty.jpg": b"", "gone.jpg": None, "text.jpg": b"no picture"}
    scan_id = packed.inspections().set_index("path").loc["3.png", "scan_id"]
    assert packed.contents([scan_id]) == {scan_id: _picture(3)}


def test_a_packing_that_breaks_off_leaves_nothing_that_looks_complete(source: Path, tmp_path: Path) -> None:
    class BreakingLauncher:
        written = 0

        def map(self, function, items):  # type: ignore[no-untyped-def]
            yield function(items[0])
            self.written = len(list(tmp_path.rglob("part-00000.parquet")))
            raise OSError("a worker died")

    files = list_files(Source("folder", str(source), "test"))
    dataset, launcher = PackedScansDataset(filepath=str(tmp_path / "scans.parquet")), BreakingLauncher()
    with pytest.raises(DatasetError, match="a worker died"):
        dataset.save(Packing(_cut(files, 2), launcher))
    assert launcher.written, "the fault must come after the first block was written"
    assert not dataset.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    with pytest.raises(DatasetError, match="kedro run --pipelines=ingestion"):
        dataset.load()


def test_the_previews_need_no_spark_and_are_one(source: Path, tmp_path: Path) -> None:
    dataset = _pack(source, tmp_path, blocks=3)
    preview = SparkScansDataset(filepath=str(tmp_path / "scans.parquet")).preview()
    assert preview == dataset.preview()
    assert len(preview) > 100


@pytest.mark.parametrize(("blocks", "count", "found"), [(1, 16, 12), (3, 16, 12), (3, 5, 5), (7, 3, 3)])
def test_thumbnails_come_from_all_over_the_set(
    source: Path, tmp_path: Path, blocks: int, count: int, found: int
) -> None:
    packed = _pack(source, tmp_path, blocks).load()
    thumbnails = packed.thumbnails(count)
    assert len(thumbnails) == found
    assert set(thumbnails) <= set(packed.inspections()["thumbnail"])


def test_options_of_the_filesystem_reach_the_tasks(
    source: Path, tmp_path: Path, keyed_disk: dict[str, str]
) -> None:
    files = list_files(Source("folder", str(source), "test"))
    dataset = PackedScansDataset(filepath=f"keyed://{tmp_path}/scans.parquet", credentials=keyed_disk)
    dataset.save(Packing(plan_blocks(files), ProcessLauncher(workers=1)))
    assert len(dataset.load().inspections()) == len(files)


@pytest.mark.spark
def test_spark_executors_pack_the_same_as_processes(source: Path, tmp_path: Path, spark: Any) -> None:
    files = list_files(Source("folder", str(source), "test"))
    stored = {}
    for name, launcher in (("spark", SparkLauncher(spark)), ("process", ProcessLauncher(workers=1))):
        dataset = PackedScansDataset(filepath=str(tmp_path / name / "scans.parquet"))
        dataset.save(Packing(_cut(files, 3), launcher))
        table = pq.read_table(tmp_path / name / "scans.parquet", columns=["scan_id", "content"])
        stored[name] = (table.sort_by("scan_id"), dataset.load().inspections())
    assert stored["spark"][0].equals(stored["process"][0])
    pd.testing.assert_frame_equal(stored["spark"][1], stored["process"][1])


@pytest.mark.spark
def test_spark_reads_and_writes_below_a_root_that_looks_like_a_pattern(
    source: Path, tmp_path: Path, spark: Any
) -> None:
    from pyspark.sql.functions import lit

    root = tmp_path / "a [1] {b} *"
    _pack(source, root)
    frame = SparkScansDataset(filepath=str(root / "scans.parquet")).load()
    assert frame.count() == 10
    dataset = SparkShardsDataset(filepath=str(root / "model_inputs.parquet"))
    schema = model_input_schema(32, ("glioma",))
    dataset.save(prepared_scans(frame.withColumn("label", lit(0)), PrepareOptions(image_size=32), schema))
    assert dataset.load().count() == 10
    assert ShardSet(str(root / "model_inputs.parquet")).stored_rows() == 10


@pytest.mark.spark
def test_the_settings_bound_the_bytes_of_a_batch(spark: Any) -> None:
    [name] = [name for name in _spark_settings("local") if name.endswith("maxBytesPerBatch")]
    assert _spark_settings("cluster")[name] == _spark_settings("local")[name] == "32m"

    def sizes(batches):  # type: ignore[no-untyped-def]
        yield from (pa.RecordBatch.from_pydict({"rows": [len(batch)]}) for batch in batches)

    spark.conf.set(name, "1k")
    try:
        frame = spark.range(0, 1_000, 1, 1).mapInArrow(sizes, "rows long")
        assert max(row.rows for row in frame.collect()) < 200, "the property must be one that Spark knows"
    finally:
        spark.conf.unset(name)


def _spark_settings(environment: str) -> dict[str, str]:
    path = Path(__file__).parents[2] / "conf" / environment / "spark.yml"
    return dict(yaml.safe_load(path.read_text().replace("${", "")))
