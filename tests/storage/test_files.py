"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from brain_mri.storage.files import CorruptWriteError, open_filesystem, replace_folder, write_file


class BitFlippingFileSystem(LocalFileSystem):
    """A disk that returns other bytes than were written: the fault that verification is for."""

    def open(self, path, mode="rb", **arguments):  # type: ignore[no-untyped-def]
        if "r" in mode and ".tmp" in path:
            content = Path(path).read_bytes()
            Path(path).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        return super().open(path, mode, **arguments)


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    filesystem, path = open_filesystem(str(tmp_path / "new" / "metrics.json"))
    write_file(filesystem, path, b"old")
    write_file(filesystem, path, b"new")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["metrics.json"]
    assert Path(path).read_bytes() == b"new"


def test_a_disk_that_flips_a_bit_is_noticed_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(b"old")
    with pytest.raises(CorruptWriteError, match="read back"):
        write_file(BitFlippingFileSystem(), str(path), b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("metrics.json", b"old")]


def test_a_folder_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    filesystem, path = open_filesystem(str(tmp_path / "scans.parquet"))
    with replace_folder(filesystem, path) as staging:
        write_file(filesystem, f"{staging}/part", b"old")
    seen_inside: list[bytes] = []

    def break_off() -> None:
        with replace_folder(filesystem, path) as staging:
            write_file(filesystem, f"{staging}/part", b"half")
            seen_inside.append((tmp_path / "scans.parquet" / "part").read_bytes())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert seen_inside == [b"old"], "a reader must not see the new folder before it is complete"
    assert [folder.name for folder in tmp_path.iterdir()] == ["scans.parquet"]
    assert (tmp_path / "scans.parquet" / "part").read_bytes() == b"old"


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    filesystem, path = open_filesystem(str(tmp_path / "scans.parquet"))
    for name in ("first", "second"):
        with replace_folder(filesystem, path) as staging:
            write_file(filesystem, f"{staging}/{name}", b"")
    assert [file.name for file in (tmp_path / "scans.parquet").iterdir()] == ["second"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["scans.parquet"]
