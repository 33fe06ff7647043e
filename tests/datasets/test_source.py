"""Where the scans are, and which files lie there."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from brain_mri.datasets import TableDataset
from brain_mri.datasets.source import RawFolder, SourceError, list_files, survey_source
from brain_mri.imaging.phantom import MARKER_NAME
from brain_mri.storage.files import open_filesystem, read_file


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
    before = survey_source(raw, str(tmp_path)).identity
    assert survey_source(raw, str(tmp_path)).identity == before
    _file(tmp_path / "glioma" / "b.jpg")
    assert survey_source(raw, str(tmp_path)).identity != before


def test_a_folder_that_cannot_be_listed_stops_the_run(tmp_path: Path) -> None:
    _file(tmp_path / "glioma" / "a.jpg")
    # Deeper than the system takes paths: refused to everybody, root included, unlike missing permissions.
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=descriptor)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    with pytest.raises(SourceError, match=r"ddd cannot be listed: File name too long\. .*chmod"):
        list_files(RawFolder("-").choose(str(tmp_path)))


def test_a_folder_and_a_link_to_it_are_listed_alike_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path / "b" / "x.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    source, scandir = RawFolder("-").choose(str(tmp_path)), os.scandir

    class Entries:
        """What is in a folder, in an order of its own."""

        def __init__(self, path: str, turned: bool) -> None:
            self._entries = iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=turned))

        def __next__(self) -> os.DirEntry[str]:
            return next(self._entries)

        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    listed = []
    for turned in (False, True):
        monkeypatch.setattr(os, "scandir", partial(Entries, turned=turned))
        listed.append(list_files(source)["path"].tolist())
    monkeypatch.undo()
    assert listed == [["a/x.jpg"], ["a/x.jpg"]]


def test_names_that_are_no_utf8_can_be_kept_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "glioma"
    folder.mkdir()
    for name, content in ((b"M\xe9ningiome.jpg", b"1"), (b"a::b.jpg", b"2"), ("ä.jpg".encode(), b"3")):
        Path(folder, os.fsdecode(name)).write_bytes(content)
    table = TableDataset(filepath=str(tmp_path / "source_files.parquet"))
    table.save(list_files(RawFolder("-").choose(str(folder))))
    files = table.load()
    assert files["path"].tolist() == ["M\\xe9ningiome.jpg", "a::b.jpg", "ä.jpg"]
    assert [read_file(*open_filesystem(url)) for url in files["url"]] == [b"1", b"2", b"3"]
    assert survey_source(RawFolder("-"), str(folder)).identity.startswith("folder ")


def test_hidden_files_are_nobodys_data_and_suffixes_do_not_matter(tmp_path: Path) -> None:
    _file(tmp_path / "scans" / ".gitkeep")
    _file(tmp_path / "scans" / ".git" / "config.txt")
    assert RawFolder(str(tmp_path)).choose(None).kind == "phantom"
    _file(tmp_path / "scans" / "glioma" / "IM0001")
    assert RawFolder(str(tmp_path)).choose(None).url == str(tmp_path / "scans")


def test_a_table_in_01_raw_is_taken_unless_a_folder_lies_beside_it(tmp_path: Path) -> None:
    table = _file(tmp_path / "labels.csv")
    chosen = RawFolder(str(tmp_path)).choose(None)
    assert (chosen.kind, chosen.url) == ("table", str(table))
    second = _file(tmp_path / "more.parquet")
    with pytest.raises(SourceError, match=r"several tables: labels\.csv, more\.parquet"):
        RawFolder(str(tmp_path)).choose(None)
    second.unlink()
    _file(tmp_path / "scans" / "glioma" / "a.jpg")
    chosen = RawFolder(str(tmp_path)).choose(None)
    assert (chosen.kind, chosen.url) == ("folder", str(tmp_path / "scans"))
    assert "labels.csv beside it is used only if" in chosen.why


def test_loose_images_in_01_raw_are_asked_into_class_folders(tmp_path: Path) -> None:
    _file(tmp_path / "README.txt")
    assert RawFolder(str(tmp_path)).choose(None).kind == "phantom"
    _file(tmp_path / "scan.JPG")
    with pytest.raises(SourceError, match=r"such as 'scan\.JPG'.*class folders"):
        RawFolder(str(tmp_path)).choose(None)
