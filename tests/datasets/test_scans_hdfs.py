"""Saving scans on a real HDFS is the upload: what is missing is sent, what is there is found by content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from brain_mri.datasets.blocks import plan_blocks
from brain_mri.datasets.originals import OriginalFilesDataset, Originals
from brain_mri.datasets.packing import Packing
from brain_mri.datasets.scans import PackedScansDataset
from brain_mri.datasets.source import Source, list_files
from brain_mri.spark.launchers import ProcessLauncher
from brain_mri.storage.files import open_filesystem, read_file, remove

if TYPE_CHECKING:
    from tests.clusters import Cluster

pytestmark = pytest.mark.cluster

NAMES = ("a.png", "ä 1 %20.png", "glioma #2?;.png", "b [1] {c} *.png", "d.png", "e.png", "f.png", "g.png")


class FewTasks:
    """Runs some of the tasks in this process, then breaks off."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def map(self, function: Any, items: Any) -> Iterator[Any]:
        yield from map(function, items[: self.tasks])
        if self.tasks < len(items):
            raise OSError("a worker died")


ALL = FewTasks(1_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 255, (40 + number, 40), dtype=np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


@pytest.fixture
def root(in_cluster: Cluster) -> Iterator[str]:
    """A storage root of its own on the shared cluster."""
    url = f"hdfs:///user/test-scans/{os.getpid()}-{os.urandom(4).hex()}"
    yield url
    remove(*open_filesystem(url))


def _save(source: str, root: str, launcher: Any = ALL) -> list[dict[str, Any]]:
    dataset = PackedScansDataset(filepath=f"{root}/scans.parquet")
    dataset.save(Packing(plan_blocks(list_files(Source("folder", source, "test"))), launcher))
    return dataset.load().stats()


def _sent(records: list[dict[str, Any]]) -> list[bool]:
    return [record["sent"] > 0 for record in records]


def test_an_upload_that_breaks_off_is_resumed_and_a_damaged_block_sent_again(source: Path, root: str) -> None:
    with pytest.raises(DatasetError, match="a worker died"):
        _save(str(source), root, FewTasks(2))
    dataset = PackedScansDataset(filepath=f"{root}/scans.parquet")
    filesystem, folder = open_filesystem(f"{root}/scans.parquet")
    whole = [path for path in filesystem.ls(folder, detail=False) if path.endswith(".parquet")]
    assert len(whole) == 2, "the fault must come after some blocks"
    assert not dataset.exists()
    records = _save(str(source), root, ProcessLauncher(workers=2))
    assert sum(_sent(records)) == len(records) - 2
    handle = dataset.load()
    contents = handle.contents(handle.inspections()["scan_id"].tolist())
    assert sorted(contents.values()) == sorted(path.read_bytes() for path in source.iterdir())
    damaged = f"{folder}/{records[1]['name']}"
    content = read_file(filesystem, damaged)
    with filesystem.open(damaged, "wb") as stream:
        stream.write(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert _sent(_save(str(source), root)) == [number == 1 for number in range(len(records))]
    assert read_file(filesystem, damaged) == content
    (source / "new.png").write_bytes((source / "a.png").read_bytes() + b"another")
    assert sum(_sent(_save(str(source), root))) == 1
    names = {record["name"] for record in handle.stats()}
    stored = {path.rpartition("/")[2] for path in filesystem.find(folder)}
    assert stored == names | {"_SUCCESS"} | {f"{name}.json" for name in names}


def test_original_files_on_hdfs_are_a_source_that_packs_into_the_same_blocks(source: Path, root: str) -> None:
    originals = OriginalFilesDataset(filepath=f"{root}/original_files")
    files = list_files(Source("folder", str(source), "test"))
    plan = Originals(ALL, tuple(zip(files["path"], files["url"], strict=True)))
    originals.save(plan)
    originals.save(plan)
    assert originals.load()["files"] == len(NAMES)
    listed = list_files(Source("folder", f"{root}/original_files", "test"))
    listed = listed[listed["path"] != "_SUCCESS"].reset_index(drop=True)
    pd.testing.assert_frame_equal(listed[["path", "bytes"]], files[["path", "bytes"]])
    here = _save(str(source), root)
    dataset = PackedScansDataset(filepath=f"{root}/again/scans.parquet")
    dataset.save(Packing(plan_blocks(listed), ALL))
    assert [(record["name"], record["sha256"]) for record in dataset.load().stats()] == [
        (record["name"], record["sha256"]) for record in here
    ]
