"""A call to the NameNode that is done, and whose answer is lost, may be repeated."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from brain_mri.storage.files import open_filesystem, read_file, remove, rename, write_file
from brain_mri.storage.lock import LockedError, RunLock

if TYPE_CHECKING:
    from tests.clusters import Cluster

pytestmark = pytest.mark.cluster

_numbers = itertools.count()


class LosingProxy:
    """Stands between a client and the NameNode; can lose the answer to a call, and the connection with it.

    Attributes:
        lost: How many answers were lost.
    """

    def __init__(self, namenode: str) -> None:
        host, _, port = namenode.rpartition(":")
        self._namenode = (host, int(port))
        self._call = b""
        self._times = 0
        self.lost = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, call: str, times: int = 1) -> None:
        """Lose the answers to the next calls of this name, for example "rename2"."""
        self._call, self._times = call.encode(), times

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                namenode = socket.create_connection(self._namenode)
                doomed = threading.Event()
                threading.Thread(target=self._ask, args=(client, namenode, doomed), daemon=True).start()
                threading.Thread(target=self._answer, args=(namenode, client, doomed), daemon=True).start()

    def _ask(self, client: socket.socket, namenode: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while content := client.recv(65536):
                if self._times and self._call in content:
                    self._times -= 1
                    doomed.set()
                namenode.sendall(content)
        namenode.close()

    def _answer(self, namenode: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while content := namenode.recv(65536):
                if doomed.is_set():
                    self.lost += 1
                    break
                client.sendall(content)
        client.shutdown(socket.SHUT_RDWR)
        client.close()


@pytest.fixture
def proxy(in_cluster: Cluster) -> Iterator[LosingProxy]:
    proxy = LosingProxy(in_cluster.addresses["namenode"])
    yield proxy
    proxy.close()


@pytest.fixture
def root(proxy: LosingProxy) -> Iterator[str]:
    """A storage root that is reached through the proxy."""
    path = f"/user/test-storage/lost-{os.getpid()}-{next(_numbers)}"
    yield f"hdfs://{proxy.address}{path}"
    remove(*open_filesystem(f"hdfs://{path}"))


# hdfs-native repeats a call once by itself, so of two lost answers `retried` meets the second.
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_rename_whose_answer_is_lost_has_happened(proxy: LosingProxy, root: str, times: int) -> None:
    filesystem, path = open_filesystem(root)
    write_file(filesystem, f"{path}/old", b"old")
    write_file(filesystem, f"{path}/new", b"new")
    proxy.lose("rename2", times)
    rename(filesystem, f"{path}/new", f"{path}/old")
    assert proxy.lost == times
    assert filesystem.ls(path, detail=False) == [f"{path}/old"]
    assert read_file(filesystem, f"{path}/old") == b"new"


def test_a_rename_of_what_is_missing_is_no_success(proxy: LosingProxy, root: str) -> None:
    filesystem, path = open_filesystem(root)
    write_file(filesystem, f"{path}/old", b"old")
    write_file(filesystem, f"{path}/new", b"new")
    before = filesystem.info

    def swept(found: str) -> object:
        """Somebody removes the file between the look-up and the rename."""
        information = before(found)
        filesystem.info = before
        remove(filesystem, f"{path}/new")
        return information

    filesystem.info = swept
    with pytest.raises(FileNotFoundError):
        rename(filesystem, f"{path}/new", f"{path}/old")
    assert read_file(filesystem, f"{path}/old") == b"old"


@pytest.mark.parametrize("call", ["mkdirs", "create", "addBlock", "complete", "rename2", "getFileInfo"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_file_is_written_whichever_answer_is_lost(
    proxy: LosingProxy, root: str, call: str, times: int
) -> None:
    filesystem, path = open_filesystem(root)
    write_file(filesystem, f"{path}/file", b"old")
    proxy.lose(call, times)
    write_file(filesystem, f"{path}/file", b"new")
    assert proxy.lost == times
    assert read_file(filesystem, f"{path}/file") == b"new"
    assert [name for name in filesystem.ls(path, detail=False) if not name.endswith(".tmp")] == [
        f"{path}/file"
    ]


def test_a_removal_whose_answer_is_lost_has_happened(proxy: LosingProxy, root: str) -> None:
    filesystem, path = open_filesystem(root)
    write_file(filesystem, f"{path}/folder/file", b"x")
    proxy.lose("delete", 2)
    remove(filesystem, f"{path}/folder")
    assert proxy.lost == 2
    assert filesystem.ls(path) == []


def test_a_lock_whose_answer_is_lost_is_held(proxy: LosingProxy, root: str) -> None:
    lock = RunLock(root)
    proxy.lose("rename2", 4)  # of the file beside it, and of the lock itself
    lock.acquire()
    assert proxy.lost == 4
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        RunLock(root).acquire()
    lock.release()
    filesystem, path = open_filesystem(root)
    assert filesystem.ls(path) == []
