"""Where the scans are, and which files lie there."""

from __future__ import annotations

from pathlib import Path

import pytest

from brain_mri.datasets.source import RawFolder, SourceError, list_files, source_identity
from brain_mri.imaging.phantom import MARKER_NAME


def _file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_was_asked_for_goes_before_the_environment_the_users_folder_and_phantoms(tmp_path: Path) -> None:
    raw = tmp_path / "01_raw"
    asked, environment = (
        _file(tmp_path / "asked" / "a.jpg").parent,
        _file(tmp_path / "environment" / "a.jpg").parent,
    )
    assert RawFolder(str(raw)).choose(None).kind == "phantom"
    _file(raw / "phantom" / "glioma" / "p.jpg")
    assert RawFolder(str(raw)).choose(None).kind == "phantom", "drawn scans are never taken for a user's"
    own = _file(raw / "scans" / "glioma" / "a.jpg").parents[1]
    assert RawFolder(str(raw)).choose(None).url == str(own)
    assert RawFolder(str(raw), str(environment)).choose(None).url == str(environment)
    chosen = RawFolder(str(raw), str(environment)).choose(str(asked))
    assert (chosen.url, chosen.kind, chosen.why) == (str(asked), "folder", "it is given as ingestion.source")


def test_class_folders_that_lie_in_01_raw_itself_are_found(tmp_path: Path) -> None:
    for label in ("glioma", "notumor"):
        _file(tmp_path / label / "a.jpg")
    assert RawFolder(str(tmp_path)).choose(None).url == str(tmp_path)


def test_phantoms_do_not_mix_with_scans_beside_them(tmp_path: Path) -> None:
    _file(tmp_path / "phantom" / MARKER_NAME)
    _file(tmp_path / "phantom" / "glioma" / "drawn.jpg")
    for label in ("glioma", "notumor"):
        _file(tmp_path / label / "mine.jpg")
    source = RawFolder(str(tmp_path)).choose(None)
    assert source.kind == "folder"
    assert list_files(source)["path"].tolist() == ["glioma/mine.jpg", "notumor/mine.jpg"]


def test_phantoms_stay_phantoms_when_they_are_named(tmp_path: Path) -> None:
    _file(tmp_path / "copy" / MARKER_NAME)
    assert RawFolder(str(tmp_path)).choose(str(tmp_path / "copy")).kind == "phantom"


def test_a_source_that_is_not_there_is_an_error_with_the_nearest_folder(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=rf"nothing at .*/scanz.*nearest folder that exists is '{tmp_path}'"
    ):
        RawFolder(str(tmp_path)).choose(str(tmp_path / "scanz" / "x"))
    text = _file(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="no table"):
        RawFolder(str(tmp_path)).choose(str(text))


def test_loops_of_links_end_and_odd_names_survive(tmp_path: Path) -> None:
    _file(tmp_path / "glioma" / "scan ä ©.jpg", b"123")
    (tmp_path / "glioma" / "loop").symlink_to(tmp_path)
    (tmp_path / "glioma" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    files = list_files(RawFolder("-").choose(str(tmp_path)))
    assert files[["path", "bytes"]].to_numpy().tolist() == [
        ["glioma/dangling.jpg", 0],
        ["glioma/scan ä ©.jpg", 3],
    ]


def test_a_url_is_listed_like_a_folder() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/listed/glioma/a.jpg", b"1234")
    memory.pipe(f"/listed/drawn/{MARKER_NAME}", b"{}")
    memory.pipe("/listed/drawn/glioma/b.jpg", b"1")
    source = RawFolder("-").choose("memory://listed")
    assert source.is_shared
    assert list_files(source).to_numpy().tolist() == [["glioma/a.jpg", "memory:///listed/glioma/a.jpg", 4]]


def test_the_identity_of_a_source_changes_with_its_files(tmp_path: Path) -> None:
    _file(tmp_path / "glioma" / "a.jpg")
    raw = RawFolder("-")
    before = source_identity(raw, str(tmp_path))
    assert source_identity(raw, str(tmp_path)) == before
    _file(tmp_path / "glioma" / "b.jpg")
    assert source_identity(raw, str(tmp_path)) != before
