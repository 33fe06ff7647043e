"""Packing scans: every file accounted for, copies stored once, nothing half-written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.io import DatasetError

from brain_mri.datasets import scans
from brain_mri.datasets.blocks import Block, plan_blocks
from brain_mri.datasets.packing import Packing
from brain_mri.datasets.prepared import Preparation, PreparedPartsDataset
from brain_mri.datasets.scans import PackedScans, PackedScansDataset, SparkScansDataset
from brain_mri.datasets.shards import model_input_schema
from brain_mri.datasets.source import Source, list_files
from brain_mri.datasets.spark_shards import SparkShardsDataset
from brain_mri.imaging.inspect import inspect_scan
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher
from brain_mri.storage.files import write_file


def _picture(seed: int) -> bytes:
    """A picture, of another size in bytes than those of other seeds, so not all fall into one block."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40 + seed, 40), dtype=np.uint8)
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
    ids = packed.inspections().set_index("path")["scan_id"]
    wanted = {"empty.jpg": b"", "text.jpg": b"no picture", "3.png": _picture(3)}
    assert packed.contents([*ids[list(wanted)], ids["gone.jpg"], "unknown"]) == {
        ids[path]: content for path, content in wanted.items()
    }


def test_scan_ids_come_in_the_order_of_the_row_groups(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain_mri.storage.parquet.ROW_GROUP_BYTES", 2000)
    packed = _pack(source, tmp_path).load()
    for record in packed.stats():
        file = pq.ParquetFile(tmp_path / "scans.parquet" / record["name"])
        groups = [file.read_row_group(number)["scan_id"].to_pylist() for number in range(file.num_row_groups)]
        assert [len(group) for group in groups] == record["row_groups"]
        assert [scan_id for group in groups for scan_id in group] == packed.scan_ids(record)
    assert max(len(record["row_groups"]) for record in packed.stats()) > 1


def test_every_accepted_scan_has_its_thumbnail(source: Path, tmp_path: Path) -> None:
    packed = _pack(source, tmp_path, blocks=3).load()
    store, ids = packed.thumbnail_store(), _scan_ids(packed)
    expected = [inspect_scan(content).thumbnail for content in map(packed.contents(ids).get, ids) if content]
    assert [row.tobytes() for row in store(ids)] == expected
    assert hashlib.sha256(b"no picture").hexdigest() not in store
    assert ids[0] in store


def test_adding_keeps_earlier_blocks_and_packs_only_what_is_new(source: Path, tmp_path: Path) -> None:
    _save(source, tmp_path)
    dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
    earlier = dataset.load().inspections()
    names = {record["name"] for record in dataset.load().stats()}
    for seed in range(20, 24):
        (source / f"{seed}.png").write_bytes(_picture(seed))
    files = list_files(Source("folder", str(source), "test"))
    known = earlier.loc[earlier["scan_id"] != "", ["scan_id", "bytes"]]
    for _ in range(2):  # a save that was broken off after it is the same once more
        plan = plan_blocks(files, known=known)
        dataset.save(Packing(plan, ProcessLauncher(workers=1), earlier=frozenset(known["scan_id"])))
        added = dataset.load().inspections().set_index("path")
        assert added["status"].value_counts().to_dict() == {"known": 14, "accepted": 4, "quarantined": 1}
        assert sum(record["rows"] for record in dataset.load().stats()) == 14
        stored = pq.read_table(tmp_path / "scans.parquet", columns=["content"])["content"].to_pylist()
        assert sorted(stored) == sorted(_picture(seed) for seed in (*range(10), *range(20, 24)))
    scan_id = hashlib.sha256(b"no picture").hexdigest()
    assert dataset.load().contents([scan_id]) == {scan_id: b"no picture"}
    kept = {record["name"] for record in dataset.load().stats()}
    assert names & kept, "the blocks of the earlier scans must still be there"


def test_blocks_of_a_set_that_was_never_decided_upon_go_when_another_is_added(
    source: Path, tmp_path: Path
) -> None:
    """Packed, but not in the manifest: the run was broken off there, and another source is added now."""
    _save(source, tmp_path)
    dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
    earlier = frozenset(_scan_ids(dataset.load()))
    for name, seeds in (("abandoned", (50, 51)), ("wanted", (60, 61))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            (tmp_path / name / f"{seed}.png").write_bytes(_picture(seed))
        files = list_files(Source("folder", str(tmp_path / name), "test"))
        dataset.save(Packing(plan_blocks(files), ProcessLauncher(workers=1), earlier=earlier))
    stored = pq.read_table(tmp_path / "scans.parquet", columns=["content"])["content"].to_pylist()
    assert sorted(stored) == sorted(_picture(seed) for seed in (*range(10), 60, 61))


class BreakingLauncher:
    """Runs some of the tasks, and breaks off."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def map(self, function, items):  # type: ignore[no-untyped-def]
        yield from map(function, items[: self.tasks])
        raise OSError("a worker died")


def _save(source: Path, target: Path, launcher: Any = None) -> list[dict[str, Any]]:
    """Pack a source as ingestion does; the stats records."""
    files = list_files(Source("folder", str(source), "test"))
    dataset = PackedScansDataset(filepath=str(target / "scans.parquet"))
    dataset.save(Packing(plan_blocks(files), launcher or ProcessLauncher(workers=1)))
    return dataset.load().stats()


def _sent(records: list[dict[str, Any]]) -> int:
    return sum(record["sent"] > 0 for record in records)


def _stored_files(target: Path) -> dict[str, bytes]:
    folder = target / "scans.parquet"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_first_save_that_breaks_off_leaves_nothing_that_looks_complete(
    source: Path, tmp_path: Path
) -> None:
    dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
    with pytest.raises(DatasetError, match="a worker died"):
        _save(source, tmp_path, BreakingLauncher(tasks=2))
    assert len(list(tmp_path.glob("scans.parquet/part-*"))) == 2, "the fault must come after some blocks"
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="kedro run --pipelines=ingestion"):
        dataset.load()


def test_only_what_is_missing_is_sent(source: Path, tmp_path: Path) -> None:
    first = _save(source, tmp_path)
    assert _sent(first) == len(first) > 3
    before = _stored_files(tmp_path)
    second = _save(source, tmp_path)
    assert _sent(second) == 0
    assert [record["name"] for record in second] == [record["name"] for record in first]
    after = _stored_files(tmp_path)
    assert {name: after[name] for name in after if name != "_SUCCESS"} == {
        name: before[name] for name in before if name != "_SUCCESS"
    }


@pytest.mark.parametrize("change", ["a file more", "a file less", "other bytes of one size"])
def test_a_changed_file_sends_its_block_alone(source: Path, tmp_path: Path, change: str) -> None:
    for seed in range(20, 40):
        (source / f"{seed}.png").write_bytes(_picture(seed) + b"x" * seed)
    first = _save(source, tmp_path)
    if change == "a file more":
        (source / "new.png").write_bytes(_picture(99))
    elif change == "a file less":
        (source / "30.png").unlink()
    else:
        content = (source / "30.png").read_bytes()
        (source / "30.png").write_bytes(content[:-1] + b"y")
    second = _save(source, tmp_path)
    assert len({record["name"] for record in second} - {record["name"] for record in first}) == 1
    assert _sent(second) == 1
    handle = PackedScansDataset(filepath=str(tmp_path / "scans.parquet")).load()
    assert len(handle.inspections()) == len(list(source.iterdir()))
    stored = pq.read_table(tmp_path / "scans.parquet", columns=["scan_id", "content"]).to_pydict()
    assert set(stored["content"]) == {path.read_bytes() for path in source.glob("*.png")}, (
        "other tools, which read all that lies in the folder, must see the new set and nothing else"
    )


def test_a_save_that_breaks_off_is_resumed_and_the_old_set_stays_meanwhile(
    source: Path, tmp_path: Path
) -> None:
    _save(source, tmp_path)
    handle = PackedScansDataset(filepath=str(tmp_path / "scans.parquet")).load()
    old = (handle.inspections(), handle.contents(handle.inspections()["scan_id"].tolist()))
    for path in source.glob("*.png"):
        path.write_bytes(path.read_bytes() + b"changed")
    with pytest.raises(DatasetError, match="a worker died"):
        _save(source, tmp_path, BreakingLauncher(tasks=2))
    names = {path.name for path in tmp_path.glob("scans.parquet/part-*")}
    assert len(names - {record["name"] for record in handle.stats()}) == 2, "two new blocks must be there"
    pd.testing.assert_frame_equal(handle.inspections(), old[0])
    assert handle.contents(old[0]["scan_id"].tolist()) == old[1]
    records = _save(source, tmp_path)
    assert _sent(records) == len(records) - 2
    assert all(content.endswith(b"changed") for content in handle.contents(_scan_ids(handle)).values())


def _scan_ids(handle: PackedScans) -> list[str]:
    return handle.inspections().query("status == 'accepted'")["scan_id"].tolist()


@pytest.mark.parametrize("folder", ["", "_inspections"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_block_is_found_by_its_content_and_sent_again(
    source: Path, tmp_path: Path, folder: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = _save(source, tmp_path)
    before = _stored_files(tmp_path)
    path = tmp_path / "scans.parquet" / folder / records[1]["name"]
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.unlink()
    again = _save(source, tmp_path)
    assert [record["sent"] > 0 for record in again] == [number == 1 for number in range(len(again))]
    assert path.read_bytes() == content
    assert before.keys() == _stored_files(tmp_path).keys()
    assert (records[1]["name"] in caplog.text) == (damage == "flipped")


def test_blocks_are_removed_only_when_the_mark_no_longer_names_them(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _save(source, tmp_path)
    killed = tmp_path / "scans.parquet" / "_inspections" / ".part-00000-x.parquet.0123456789ab.tmp"
    killed.write_bytes(b"half")
    (source / "3.png").unlink()
    at_the_mark: list[set[str]] = []

    def watched(filesystem: Any, path: str, content: bytes) -> None:
        at_the_mark.append(set(_stored_files(tmp_path)))
        write_file(filesystem, path, content)

    monkeypatch.setattr(scans, "write_file", watched)
    second = _save(source, tmp_path)
    named = {record["name"] for record in second}
    gone = {record["name"] for record in first} - named
    assert gone
    assert gone <= at_the_mark[0]
    assert set(_stored_files(tmp_path)) == {
        "_SUCCESS",
        *named,
        *(f"_inspections/{name}" for name in named),
        *(f"_stats/{name}.json" for name in named),
    }


def test_copies_between_blocks_leave_the_old_set_readable(source: Path, tmp_path: Path) -> None:
    """A block from which copies are taken out gets another name, and is made anew every time."""
    cut = _cut(list_files(Source("folder", str(source), "test")), 3)
    dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
    alone = [Packing((block,), ProcessLauncher(workers=1)) for block in cut]
    dataset.save(alone[1])
    [old] = dataset.load().stats()
    with pytest.raises(DatasetError, match="a worker died"):
        dataset.save(Packing(cut, BreakingLauncher(tasks=3)))
    assert old["sha256"] == hashlib.sha256(_stored_files(tmp_path)[old["name"]]).hexdigest()
    for _ in range(2):
        dataset.save(Packing(cut, ProcessLauncher(workers=1)))
        records = dataset.load().stats()
        assert [record["sent"] > 0 for record in records] == [record["dropped"] > 0 for record in records]
        assert sum(record["dropped"] for record in records) == 2
        assert len(pq.read_table(tmp_path / "scans.parquet")) == 10
        assert len(dataset.load().inspections()) == 15


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
    assert set(thumbnails) <= {row.tobytes() for row in packed.thumbnail_store()(_scan_ids(packed))}


def test_options_of_the_filesystem_reach_the_tasks(
    source: Path, tmp_path: Path, keyed_disk: dict[str, str]
) -> None:
    files = list_files(Source("folder", str(source), "test"))
    dataset = PackedScansDataset(filepath=f"keyed://{tmp_path}/scans.parquet", credentials=keyed_disk)
    dataset.save(Packing(plan_blocks(files), ProcessLauncher(workers=1)))
    assert len(dataset.load().inspections()) == len(files)


def test_a_set_that_lacks_a_block_is_no_smaller_set(source: Path, tmp_path: Path) -> None:
    record = _save(source, tmp_path)[0]
    (tmp_path / "scans.parquet" / record["name"]).unlink()
    with pytest.raises(DatasetError, match=f"lacks {record['name']}"):
        SparkScansDataset(filepath=str(tmp_path / "scans.parquet")).load()


@pytest.mark.spark
def test_spark_reads_what_the_mark_names_and_nothing_else(source: Path, tmp_path: Path, spark: Any) -> None:
    records = _save(source, tmp_path)
    folder = tmp_path / "scans.parquet"
    (folder / "part-00099-0123456789ab.parquet").write_bytes((folder / records[0]["name"]).read_bytes())
    assert SparkScansDataset(filepath=str(folder)).load().count() == 10
    assert spark.read.parquet(str(folder)).count() == 10 + records[0]["rows"]


@pytest.mark.spark
def test_spark_executors_pack_the_same_as_processes(source: Path, tmp_path: Path, spark: Any) -> None:
    files = list_files(Source("folder", str(source), "test"))
    stored = {}
    for name, launcher in (("spark", SparkLauncher()), ("process", ProcessLauncher(workers=1))):
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
    root = tmp_path / "a [1] {b} *"
    scans = _pack(source, root).load()
    assert SparkScansDataset(filepath=str(root / "scans.parquet")).load().count() == 10
    rows = pd.DataFrame({"scan_id": _scan_ids(scans), "split": "train", "label": 0}).drop_duplicates()
    parts = PreparedPartsDataset(filepath=str(root / "prepared"), parts=str(root / "model_inputs.parquet"))
    schema = model_input_schema(32, ("glioma",))
    parts.save(Preparation(scans, rows, ("train",), PrepareOptions(32), schema, SparkLauncher()))
    dataset = SparkShardsDataset(filepath=str(root / "model_inputs.parquet"))
    dataset.save(parts.load().summary("train"))
    assert dataset.load().count() == 10
