"""Whether a storage root can be used is found out in time."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brain_mri.storage import reach
from brain_mri.storage.reach import StorageError, check_reachable


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of something that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_local_root_is_made_and_left_empty(tmp_path: Path) -> None:
    check_reachable(str(tmp_path / "new" / "data"))
    assert list((tmp_path / "new" / "data").iterdir()) == []


def test_a_local_root_that_is_or_lies_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file is a file, not a folder.*another storage root"):
        check_reachable(str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file/data lies below a file"):
        check_reachable(str(tmp_path / "file" / "data"))


def test_a_local_root_that_takes_no_bytes_is_told_and_left_empty(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot be used: .*File too large"):
            check_reachable(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.access("/sys", os.R_OK), reason="no /sys, which nobody may write to")
def test_a_local_root_without_permission_is_told() -> None:
    with pytest.raises(StorageError, match=r"^/sys/brain_mri(: permission denied| is read-only)"):
        check_reachable("/sys/brain_mri")


def test_something_that_never_answers_is_given_up(
    silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reach.DEADLINE == 15
    monkeypatch.setattr(reach, "DEADLINE", 0.3)
    begin = time.monotonic()
    with pytest.raises(StorageError, match=rf"HDFS at {silent_server} does not answer.*\S+/data within"):
        check_reachable(f"hdfs://{silent_server}/data")
    assert 0.3 <= time.monotonic() - begin < 2


def test_hdfs_that_is_not_running_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    begin = time.monotonic()
    with pytest.raises(StorageError, match=rf"HDFS is not running at {address}.*kedro cluster up"):
        check_reachable(f"hdfs://{address}/data")
    assert time.monotonic() - begin < 5
