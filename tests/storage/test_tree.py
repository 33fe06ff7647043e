"""The tree says what lies where."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from brain_mri.storage.tree import describe_tree

FILES = {
    "02_intermediate/scans.parquet/part-1": 3_000_000,
    "02_intermediate/scans.parquet/_stats/part-1.json": 100_000,
    "02_intermediate/manifest.parquet": 500_000,
    "08_reporting/report.html": 1_000_000,
    "note.txt": 0,
    ".run.lock": 9_000_000,
    ".provenance/scans.json": 9_000_000,
}


def test_folders_show_what_all_levels_below_them_hold(tmp_path: Path) -> None:
    for name, size in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert describe_tree(str(tmp_path)).splitlines() == [
        f"{tmp_path}: 5 files, 4.6 MB",
        "├── 02_intermediate: 3 files, 3.6 MB",
        "│   └── scans.parquet: 2 files, 3.1 MB",
        "└── 08_reporting: 1 file, 1.0 MB",
    ]
    assert len(describe_tree(str(tmp_path), levels=1).splitlines()) == 3
    assert describe_tree(str(tmp_path), levels=3).splitlines()[3] == "│       └── _stats: 1 file, 0.1 MB"


def test_any_filesystem_will_do() -> None:
    filesystem = MemoryFileSystem()
    for name, size in FILES.items():
        filesystem.pipe_file(f"/tree/{name}", bytes(size))
    assert describe_tree("memory://tree").splitlines()[1] == "├── 02_intermediate: 3 files, 3.6 MB"


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        describe_tree(str(tmp_path / "nowhere"))
