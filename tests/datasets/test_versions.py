"""Versions are folders that appear whole."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from kedro.io import DatasetError, Version

from brain_mri.datasets import VersionedFolderDataset


def _dataset(tmp_path: Path, save: str | None = None, load: str | None = None) -> VersionedFolderDataset:
    return VersionedFolderDataset(filepath=str(tmp_path / "classifier"), version=Version(load, save))


def test_the_latest_version_is_loaded_and_all_are_listed(tmp_path: Path) -> None:
    assert not _dataset(tmp_path).exists()
    for version in ("2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"):
        _dataset(tmp_path, save=version).save({"recipe.json": version.encode()})
    loaded = pickle.loads(pickle.dumps(_dataset(tmp_path).load()))
    assert loaded.version == "2026-01-02T00.00.00.000Z"
    assert loaded.read("recipe.json") == b"2026-01-02T00.00.00.000Z"
    assert _dataset(tmp_path, load="2026-01-01T00.00.00.000Z").load().version == "2026-01-01T00.00.00.000Z"
    assert _dataset(tmp_path).list_versions(full_path=False) == [
        "2026-01-02T00.00.00.000Z",
        "2026-01-01T00.00.00.000Z",
    ]


def test_a_version_that_broke_off_does_not_exist(tmp_path: Path) -> None:
    written: list[str] = []

    class Broken(dict[str, bytes]):
        def items(self):  # type: ignore[no-untyped-def]
            yield "first", b"1"
            written.extend(path.name for path in (tmp_path / "classifier").rglob("first"))
            raise OSError("disk full")

    with pytest.raises(DatasetError, match="disk full"):
        _dataset(tmp_path, save="v1").save(Broken())
    assert written == ["first"], "the fault must come after the first file was written"
    assert not _dataset(tmp_path).exists()
    assert list((tmp_path / "classifier").iterdir()) == []


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    _dataset(tmp_path, save="v1").save({"graph.onnx": b"good"})
    (tmp_path / "classifier" / "v1" / "graph.onnx").write_bytes(b"evil")
    handle = _dataset(tmp_path).load()
    with pytest.raises(DatasetError, match=r"graph\.onnx is damaged"):
        handle.read("graph.onnx")
    with pytest.raises(DatasetError, match=r"has no file 'x'; it has graph\.onnx"):
        handle.read("x")


def test_a_storage_root_may_hold_what_looks_like_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "a [1] b*"
    _dataset(root, save="v1").save({"recipe.json": b"{}"})
    assert _dataset(root).load().read("recipe.json") == b"{}"
    assert _dataset(root).list_versions(full_path=False) == ["v1"]


def test_what_a_kill_left_behind_is_no_version(tmp_path: Path) -> None:
    _dataset(tmp_path, save="v1").save({"recipe.json": b"{}"})
    shutil.copytree(tmp_path / "classifier" / "v1", tmp_path / "classifier" / ".v2.0123456789ab.tmp")
    assert _dataset(tmp_path).list_versions(full_path=False) == ["v1"]


def test_options_of_the_filesystem_travel_with_the_handle(keyed_disk: dict[str, str], tmp_path: Path) -> None:
    arguments = {"filepath": f"keyed://{tmp_path}/classifier", "credentials": keyed_disk}
    VersionedFolderDataset(**arguments, version=Version(None, "v1")).save({"recipe.json": b"{}"})
    handle = pickle.loads(pickle.dumps(VersionedFolderDataset(**arguments).load()))
    assert handle.read("recipe.json") == b"{}"
    assert "secret" not in repr(handle)
