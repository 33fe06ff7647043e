"""Original files: stored as they are, found by content, and a source again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from brain_mri.datasets.originals import OriginalFilesDataset, Originals, plan_originals, safe_path
from brain_mri.spark.launchers import ProcessLauncher

COLUMNS = ["path", "url", "label", "official_split", "patient", "study"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for number in range(6):
        path = folder / ("glioma" if number % 2 else "no tumor") / f"ä {number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"scan {number}".encode())
    return folder


def _dataset(tmp_path: Path) -> OriginalFilesDataset:
    return OriginalFilesDataset(filepath=str(tmp_path / "original_files"))


def _plan(source: Path) -> Originals:
    paths = sorted(path for path in source.rglob("*") if not path.is_dir())
    rows = [(str(path.relative_to(source)), str(path), "glioma", None, None, None) for path in paths]
    described = {"kind": "folder", "url": str(source)}
    return plan_originals(pd.DataFrame(rows, columns=COLUMNS), described, ProcessLauncher(workers=1))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_lie_as_in_the_source(source: Path, tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    assert not dataset.exists()
    dataset.save(_plan(source))
    found = _contents(tmp_path / "original_files")
    assert json.loads(found.pop("_SUCCESS")) == dataset.load() == {"kept": True, "files": 6, "bytes": 36}
    assert found == _contents(source)


def test_only_what_differs_is_sent_and_what_is_gone_goes(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dataset = _dataset(tmp_path)
    dataset.save(_plan(source))
    (source / "glioma" / "ä 1.jpg").write_bytes(b"SCAN 1")  # of one size
    (tmp_path / "original_files" / "glioma" / "ä 3.jpg").write_bytes(b"damage")
    (source / "glioma" / "ä 5.jpg").unlink()
    untouched = tmp_path / "original_files" / "no tumor" / "ä 2.jpg"
    number = untouched.stat().st_ino
    dataset.save(_plan(source))
    found = _contents(tmp_path / "original_files")
    found.pop("_SUCCESS")
    assert found == _contents(source)
    assert untouched.stat().st_ino == number, "what is there already must not be written again"
    assert "Already there: 3; sent: 2" in caplog.text


def test_a_file_that_cannot_be_read_is_left_out(source: Path, tmp_path: Path) -> None:
    (source / "glioma" / "gone.jpg").symlink_to(source / "nowhere")
    dataset = _dataset(tmp_path)
    dataset.save(_plan(source))
    assert dataset.load()["files"] == 6


def test_what_breaks_off_is_not_complete(source: Path, tmp_path: Path) -> None:
    class BreakingLauncher:
        def map(self, function: Any, items: Any) -> Any:
            yield function(items[0][:2])
            raise OSError("a worker died")

    dataset, plan = _dataset(tmp_path), _plan(source)
    dataset.save(plan)
    with pytest.raises(Exception, match="a worker died"):
        dataset.save(Originals(BreakingLauncher(), plan.files))
    assert not dataset.exists()
    dataset.save(plan)
    assert dataset.exists()


def test_nothing_is_kept_unless_asked_for(source: Path, tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.save(Originals())
    assert _contents(tmp_path / "original_files").keys() == {"_SUCCESS"}
    assert dataset.load() == {"kept": False, "files": 0, "bytes": 0}


@pytest.mark.parametrize("plan", ["nothing", "a part of it"])
def test_kept_files_that_are_the_source_are_never_removed(source: Path, tmp_path: Path, plan: str) -> None:
    dataset = _dataset(tmp_path)
    dataset.save(_plan(source))
    dataset.save(Originals() if plan == "nothing" else _plan(tmp_path / "original_files" / "glioma"))
    assert _contents(source).items() <= _contents(tmp_path / "original_files").items()


@pytest.mark.parametrize(
    "path",
    ["/mnt/a/1.png", "..", "../1.png", "a/../../1.png", "hdfs://b/1.png", "./1.png", "a//1.png", "_SUCCESS"],
)
def test_paths_that_lead_elsewhere_are_made_safe(path: str) -> None:
    kept = safe_path(path)
    folder, digest, name = kept.split("/")
    assert (folder, len(digest), name) == ("outside", 12, path.rpartition("/")[2])
    assert safe_path(kept) != kept, "a path of the source that looks like one of ours must not meet it"
    assert safe_path("a/b c/1.png") == "a/b c/1.png"
