from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from kedro.io import DatasetError

from brain_mri.datasets.tar_shards import TarShardDataset, TarWriter, read_samples

SAMPLES = {
    "eyes/1": {"enhanced.png": b"one", "vessels.png": b"two"},
    "eyes/" + "long" * 60: {"enhanced.png": b"x" * 70_000, "vessels.png": b""},
    "ä/%2Eb": {"enhanced.png": b"three", "vessels.png": b"four"},
}


def archive(samples: dict[str, dict[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with TarWriter(stream) as tar:
        for key, members in samples.items():
            tar.add(key, members)
    return stream.getvalue()


def test_what_was_written_is_read_in_its_order() -> None:
    assert list(read_samples(io.BytesIO(archive(SAMPLES)))) == list(SAMPLES.items())


def test_the_same_members_give_the_same_bytes_whoever_writes_when() -> None:
    content = archive(SAMPLES)
    turned = {key: dict(reversed(members.items())) for key, members in SAMPLES.items()}
    assert hashlib.sha256(archive(turned)).digest() == hashlib.sha256(content).digest()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            found = (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode)
            assert found == (0, 0, 0, "", "", 0o644)


def test_webdataset_reads_it(tmp_path: Path) -> None:
    import webdataset

    (tmp_path / "shard-00000.tar").write_bytes(archive(SAMPLES))
    found = webdataset.WebDataset(str(tmp_path / "shard-00000.tar"), shardshuffle=False)
    samples = [
        {name: value for name, value in sample.items() if not name.startswith("__")} for sample in found
    ]
    assert samples == list(SAMPLES.values())


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a"), ("x/a.b",)])
def test_a_key_that_readers_would_misunderstand_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="keys are sorted, and their names hold no dot"):
        archive_of = TarWriter(io.BytesIO())
        for key in keys:
            archive_of.add(key, {"png": b""})


def test_an_archive_that_was_broken_off_has_no_end() -> None:
    stream = io.BytesIO()
    with pytest.raises(RuntimeError), TarWriter(stream) as tar:
        tar.add("a", {"png": b"1"})
        raise RuntimeError
    assert stream.getvalue() == b"", "not a byte of it went out"


def test_shards_that_are_not_complete_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.tar").write_bytes(archive(SAMPLES))
    dataset = TarShardDataset(filepath=str(tmp_path))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"_SUCCESS is missing. Run `kedro run --pipelines=enhancement"):
        dataset.load()
