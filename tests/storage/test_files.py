"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from brain_mri.storage.files import (
    local_url,
    open_filesystem,
    read_file,
    replace_file,
    replace_folder,
    sweep,
    write_file,
)
from brain_mri.storage.verification import CorruptWriteError


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


def test_a_stream_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    filesystem, path = open_filesystem(str(tmp_path / "scans.bin"))
    write_file(filesystem, path, b"old")

    def break_off() -> None:
        with replace_file(filesystem, path) as stream:
            stream.write(b"half")
            assert len(list(tmp_path.iterdir())) == 2, "the fault must come after something was written"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("scans.bin", b"old")]


@pytest.mark.parametrize("name", ["a::b", "a [1] *", "50%41"])
def test_a_local_path_is_taken_literally(tmp_path: Path, name: str) -> None:
    filesystem, path = open_filesystem(str(tmp_path / name))
    write_file(filesystem, path, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
    assert read_file(*open_filesystem(filesystem.unstrip_protocol(path))) == b"x"


def test_a_name_that_is_no_utf8_is_found_through_its_url(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"M\xe9ningiome %41.jpg")
    path.write_bytes(b"x")
    url = local_url(str(path))
    assert read_file(*open_filesystem(url.encode().decode())) == b"x"
    assert local_url("/ä.jpg") == "/ä.jpg"


@pytest.mark.parametrize("aloud", [True, False])
def test_a_filesystem_that_does_not_rename_over_files_is_helped(aloud: bool) -> None:
    refusals: list[str] = []

    class RefusingFileSystem(MemoryFileSystem):
        def mv(self, path1, path2, **arguments):  # type: ignore[no-untyped-def]
            if not self.exists(path2):
                super().mv(path1, path2, **arguments)
                return
            refusals.append(path2)
            if aloud:
                raise FileExistsError(path2)

    filesystem = RefusingFileSystem()
    for content in (b"old", b"new"):
        write_file(filesystem, f"/refusing-{aloud}/file", content)
    assert refusals == [f"/refusing-{aloud}/file"]
    assert filesystem.find(f"/refusing-{aloud}") == [f"/refusing-{aloud}/file"]
    assert read_file(filesystem, f"/refusing-{aloud}/file") == b"new"


def test_a_filesystem_that_renames_over_files_never_lacks_one() -> None:
    removed: list[str] = []

    class WatchedFileSystem(MemoryFileSystem):
        def rm(self, path, **arguments):  # type: ignore[no-untyped-def]
            removed.append(path)
            super().rm(path, **arguments)

    filesystem = WatchedFileSystem()
    for content in (b"old", b"new"):
        write_file(filesystem, "/watched/file", content)
    assert read_file(filesystem, "/watched/file") == b"new"
    assert removed, "the memory filesystem renames by copying and removing the source"
    assert "/watched/file" not in removed


KILL = textwrap.dedent(
    """
    import os, signal, sys
    from fsspec.implementations.local import LocalFileSystem
    from brain_mri.storage.files import replace_folder, write_file

    class KilledFileSystem(LocalFileSystem):
        def mv(self, path1, path2, **arguments):
            if sys.argv[2] == "swapping" and path1.endswith(".tmp") and path2 == sys.argv[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            super().mv(path1, path2, **arguments)

    with replace_folder(KilledFileSystem(), sys.argv[1]) as staging:
        write_file(KilledFileSystem(), f"{staging}/part", b"new")
        if sys.argv[2] == "writing":
            os.kill(os.getpid(), signal.SIGKILL)
    """
)


@pytest.mark.parametrize("moment", ["writing", "swapping"])
def test_what_a_kill_leaves_behind_is_swept_and_the_old_folder_is_there(tmp_path: Path, moment: str) -> None:
    layer = tmp_path / "02_intermediate"
    (layer / "scans.parquet").mkdir(parents=True)
    (layer / "scans.parquet" / "part").write_bytes(b"old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILL, str(layer / "scans.parquet"), moment]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert (layer / "scans.parquet").exists() == (moment == "writing"), "the kill must come at its moment"
    assert any(folder.name.startswith(".scans.parquet") for folder in layer.iterdir())
    assert sweep(str(tmp_path)) == (1 if moment == "writing" else 2)
    assert [folder.name for folder in layer.iterdir()] == ["scans.parquet"]
    assert (layer / "scans.parquet" / "part").read_bytes() == b"old"


def test_sweeping_leaves_all_that_is_no_leftover(tmp_path: Path) -> None:
    leftovers = (".globals.json.0123456789ab.tmp", "06_models/classifier/.v1.0123456789ab.tmp/graph.onnx")
    kept = (
        ".run.lock",
        ".provenance/scans.json",
        "02_intermediate/.mine.tmp",
        "01_raw/.scan.jpg.0123456789ab.tmp",
    )
    for name in (*leftovers, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert sweep(str(tmp_path)) == len(leftovers)
    assert sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    ) == sorted(kept)
    assert sweep(str(tmp_path)) == 0
    assert sweep(str(tmp_path / "nowhere")) == 0
