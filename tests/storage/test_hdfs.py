"""Files and folders on a real HDFS."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import (
    open_filesystem,
    read_file,
    remove,
    rename,
    replace_folder,
    sweep,
    write_file,
)
from brain_mri.storage.reach import check_reachable

if TYPE_CHECKING:
    from tests.clusters import Cluster

pytestmark = pytest.mark.cluster

_numbers = itertools.count()


@pytest.fixture
def root(in_cluster: Cluster) -> Iterator[str]:
    """A storage root of its own on the shared cluster."""
    url = f"hdfs:///user/test-storage/{os.getpid()}-{next(_numbers)}"
    filesystem, path = open_filesystem(url)
    filesystem.makedirs(path)
    yield url
    remove(*open_filesystem(url))


def names(url: str) -> list[str]:
    filesystem, path = open_filesystem(url)
    return sorted(name.rpartition("/")[2] for name in filesystem.ls(path, detail=False))


@pytest.mark.parametrize("name", ["metrics.json", "a#1?b;c%20 [1] *"])
def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(root: str, name: str) -> None:
    filesystem, path = open_filesystem(f"{root}/new/{name}")
    write_file(filesystem, path, b"old")
    write_file(filesystem, path, b"new")
    assert names(f"{root}/new") == [name]
    assert read_file(filesystem, path) == b"new"
    assert read_file(*open_filesystem(filesystem.unstrip_protocol(path))) == b"new"


def test_another_path_through_the_namenodes_address_is_the_same(root: str, in_cluster: Cluster) -> None:
    write_file(*open_filesystem(f"{root}/file"), b"x")
    by_address = root.replace("hdfs:///", f"hdfs://{in_cluster.addresses['namenode']}/")
    assert read_file(*open_filesystem(f"{by_address}/file")) == b"x"


def test_a_reader_never_lacks_a_file_that_is_replaced(root: str) -> None:
    filesystem, path = open_filesystem(f"{root}/mark")
    write_file(filesystem, path, b"0" * 100)
    ended, replaced = threading.Event(), 0

    def replace() -> None:
        nonlocal replaced
        while not ended.is_set():
            replaced += 1
            write_file(*open_filesystem(f"{root}/mark"), str(replaced % 10).encode() * 100)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        seen = set()
        while replaced <= 8:
            seen.add(read_file(filesystem, path))
    finally:
        ended.set()
        writer.join()
    assert len(seen) > 4, "the file must have been replaced meanwhile"
    assert all(len(content) == 100 and len(set(content)) == 1 for content in seen)


def test_renaming_without_leave_to_overwrite_leaves_both(root: str) -> None:
    filesystem, path = open_filesystem(root)
    for name in ("one", "two"):
        write_file(filesystem, f"{path}/{name}", name.encode())
    with pytest.raises(FileExistsError, match=r"^rename destination \S+/two already exists$"):
        filesystem.mv(f"{path}/one", f"{path}/two")
    assert read_file(filesystem, f"{path}/two") == b"two"
    rename(filesystem, f"{path}/one", f"{path}/two")
    assert names(root) == ["two"]
    assert read_file(filesystem, f"{path}/two") == b"one"


def test_what_is_not_there_is_missing_and_no_failure(root: str) -> None:
    filesystem, path = open_filesystem(f"{root}/nothing")
    remove(filesystem, path)
    assert (filesystem.exists(path), filesystem.isdir(path), filesystem.isfile(path)) == (False, False, False)
    assert filesystem.find(path) == []
    assert sweep(f"{root}/nothing") == 0
    for look_up in (lambda: read_file(filesystem, path), lambda: filesystem.mv(path, f"{path}2")):
        with pytest.raises(FileNotFoundError, match="nothing") as raised:
            look_up()
        assert "\n" not in str(raised.value), "the trace of the NameNode is not for people"


def test_a_folder_takes_the_place_of_the_old_one(root: str) -> None:
    filesystem, path = open_filesystem(f"{root}/scans.parquet")
    for name in ("first", "second"):
        with replace_folder(filesystem, path) as staging:
            write_file(filesystem, f"{staging}/{name}", b"x")
    assert names(root) == ["scans.parquet"]
    assert names(f"{root}/scans.parquet") == ["second"]


def test_what_a_kill_left_behind_is_swept_and_a_folder_is_put_back(root: str) -> None:
    filesystem, path = open_filesystem(f"{root}/02_intermediate")
    write_file(filesystem, f"{path}/.a.json.0123456789ab.tmp", b"half")
    write_file(filesystem, f"{path}/.scans.parquet.0123456789ab.old/part", b"old")
    write_file(filesystem, f"{path}/.scans.parquet.0123456789ab.tmp/part", b"new")
    assert sweep(root) == 3
    assert names(f"{root}/02_intermediate") == ["scans.parquet"]
    assert read_file(filesystem, f"{path}/scans.parquet/part") == b"old"


def test_a_file_is_read_in_pieces_and_from_anywhere(root: str) -> None:
    filesystem, path = open_filesystem(f"{root}/big")
    content = os.urandom(3_000_000)
    write_file(filesystem, path, content)
    with filesystem.open(path, "rb") as stream:
        stream.seek(-1000, os.SEEK_END)
        assert stream.read() == content[-1000:]
        stream.seek(5)
        assert (stream.read(7), stream.tell()) == (content[5:12], 12)
    with pytest.raises(ValueError, match="not for ab"):
        filesystem.open(path, "ab")


def test_a_process_that_uses_hdfs_can_start_another_one(root: str) -> None:
    """With hdfs-native's own filesystem it hangs: what fsspec frees in the forked child waits for threads."""
    script = (
        "import subprocess, sys\n"
        "import fsspec, brain_mri.storage.files\n"
        "fsspec.core.url_to_fs(sys.argv[1])[0].ls('/')\n"
        "subprocess.run(['true'], preexec_fn=lambda: None, check=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, root], env=environment, check=True, timeout=60)


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, path = open_filesystem(root)
    write_file(filesystem, f"{path}/secret/file", b"x")
    filesystem.client.set_permission(f"{path}/secret", 0o700)
    with monkeypatch.context() as somebody:
        somebody.setenv("HADOOP_USER_NAME", "somebody")
        others, _ = open_filesystem(root)
        assert others.ls(path, detail=False) == [f"{path}/secret"]
        with pytest.raises(StorageError, match=rf"does not permit this on {root}/secret"):
            others.find(path)


def test_a_user_without_permission_is_told_so(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(*open_filesystem(f"{root}/file"), b"x")
    refusal = rf"does not permit this on {root}.*Permission denied: user=somebody"
    with monkeypatch.context() as somebody:
        somebody.setenv("HADOOP_USER_NAME", "somebody")
        with pytest.raises(StorageError, match=refusal):
            write_file(*open_filesystem(f"{root}/file"), b"y")
        with pytest.raises(StorageError, match=refusal):
            check_reachable(f"{root}/data")
    assert read_file(*open_filesystem(f"{root}/file")) == b"x"


def test_a_root_that_can_be_used_is_made_and_left_empty(root: str) -> None:
    check_reachable(f"{root}/new/data")
    assert names(f"{root}/new/data") == []


def test_a_full_quota_is_told_at_once_and_leaves_the_old_file(root: str, in_cluster: Cluster) -> None:
    filesystem, path = open_filesystem(f"{root}/file")
    write_file(filesystem, path, b"old")
    set_space_quota(in_cluster, path.removesuffix("/file"), 1000)
    begin = time.monotonic()
    with pytest.raises(StorageError, match=rf"{root}/file is full, its quota .*1000 B"):
        write_file(filesystem, path, b"new")
    with pytest.raises(StorageError, match="is full, its quota"):
        check_reachable(root)
    assert time.monotonic() - begin < 5, "a full quota must not be tried again"
    assert names(root) == ["file"]
    assert read_file(filesystem, path) == b"old"


def test_a_corrupt_replica_is_passed_over_and_a_corrupt_block_is_named(
    root: str, in_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    filesystem, path = open_filesystem(f"{root}/damaged")
    content = os.urandom(300_000)
    write_file(filesystem, path, content)
    replicas = files_that_hold(in_cluster, content)
    assert len(replicas) == 2
    damage(replicas[0])
    assert [read_file(filesystem, path) for _ in range(4)] == [content] * 4
    damage(replicas[1])
    begin = time.monotonic()
    with pytest.raises(
        StorageError, match=rf"{root}/damaged cannot be read: every replica .* corrupt or gone"
    ):
        read_file(filesystem, path)
    assert time.monotonic() - begin < 15
    assert len([record for record in caplog.records if "Trying again" in record.getMessage()]) <= 1


def set_space_quota(cluster: Cluster, path: str, size: int) -> None:
    """What `hdfs dfsadmin -setSpaceQuota` does, over WebHDFS."""
    user = open_filesystem("hdfs:///user")[0].info("/")["owner"]
    connection = http.client.HTTPConnection(cluster.addresses["namenode_http"], timeout=10)
    request = f"/webhdfs/v1{quote(path)}?op=SETQUOTA&namespacequota=1000000&storagespacequota={size}"
    connection.request("PUT", f"{request}&user.name={user}")
    response = connection.getresponse()
    assert response.status == http.client.OK, response.read()
    connection.close()


def files_that_hold(cluster: Cluster, content: bytes) -> list[Path]:
    """The files of the DataNodes with this block; several DataNodes, so several files."""
    files = (cluster.folder / "hdfs").glob("data-*/**/blk_*")
    return [
        file
        for file in files
        if re.fullmatch(r"blk_\d+", file.name)
        and file.stat().st_size == len(content) == len(file.read_bytes())
        if file.read_bytes() == content
    ]


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
