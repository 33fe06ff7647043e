"""HDFS as a filesystem of fsspec: hdfs-native's, with patience and with errors that people understand.

What differs from `hdfs_native.fsspec`:

- Calls are repeated while a NameNode restarts or a DataNode is gone (`retried`), for seconds: by default
  hdfs-native alone would be silent for three minutes.
- Errors are `StorageError` with a sentence, not `RuntimeError` with the debug text of a Rust structure. A
  missing or existing file stays `FileNotFoundError` and `FileExistsError`.
- `#`, `?` and `;` in names are parts of names.
- A look-up that fails does not count as an answer: fsspec's `isdir`, `isfile` and `find` take every `OSError`
  for "there is nothing".
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hdfs_native import FileReader, FileWriter, WriteOptions
from hdfs_native.fsspec import HdfsFileSystem

from brain_mri.storage.faults import explain, plain
from brain_mri.storage.hadoop import configuration_folder, namenode, read_properties
from brain_mri.storage.retry import retried

logger = logging.getLogger(__name__)

_CLIENT_SETTINGS = {
    # As in Hadoop's hdfs-default.xml, where they are 15, 500 and 15000. hdfs-native 0.14.7 reads these, and
    # none of ipc.client.connect.* and dfs.client.retry.*, which Hadoop's own clients read as well.
    "dfs.client.failover.max.attempts": "2",  # for a single NameNode too
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "500",
}


def open_hdfs(url: str, **options: Any) -> tuple[Hdfs, str]:
    """Return the HDFS of an `hdfs://` URL, and the path on it.

    Args:
        url: `hdfs:///path` is on the default filesystem of the Hadoop configuration.
        options: Hadoop properties that go before those of the configuration.

    Raises:
        StorageError: Neither the URL nor the configuration names a NameNode.
    """
    by_default = url.startswith("hdfs:///")
    address = namenode(options.get("fs.defaultFS", url) if by_default else url)
    if not address:
        raise explain(RuntimeError("No fs.defaultFS"), url)
    # fsspec keeps filesystems by their options: another address, configuration or user must give another one.
    key = f"{configuration_folder()} {os.environ.get('HADOOP_USER_NAME')}"
    settings = {"brain_mri.cache_key": key, **options, "fs.defaultFS": f"hdfs://{address}"}
    host, _, port = ("", "", "") if by_default else address.partition(":")
    return Hdfs(host or None, int(port) if port else None, **settings), Hdfs._strip_protocol(url)


@contextmanager
def _sentences(url: str) -> Iterator[None]:
    """Turn what hdfs-native raises into errors for people."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, IsADirectoryError) as error:
        raise type(error)(plain(error)) from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, NotImplementedError):
            raise
        logger.debug("%s: %s", url, error)
        raise explain(error, url) from None


def _steady(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that may be done twice be repeated, and raise sentences."""

    @functools.wraps(method)
    def call(filesystem: Hdfs, path: str, *arguments: Any, **options: Any) -> Any:
        url = filesystem.unstrip_protocol(path)

        def attempt() -> Any:
            with _sentences(url):
                return method(filesystem, path, *arguments, **options)

        return retried(attempt, url)

    return call


class Hdfs(HdfsFileSystem):
    """HDFS; `open_hdfs` makes one. It is also what fsspec gives to others in this process (Kedro-Viz)."""

    def __init__(self, host: str | None = None, port: int | None = None, **options: Any) -> None:
        configured = read_properties()
        patience = {name: value for name, value in _CLIENT_SETTINGS.items() if name not in configured}
        super().__init__(host, port, **{**patience, **options})

    info = _steady(HdfsFileSystem.info)
    ls = _steady(HdfsFileSystem.ls)
    mkdir = _steady(HdfsFileSystem.mkdir)
    rm = _steady(HdfsFileSystem.rm)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return re.sub(r"^hdfs://[^/]*", "", path).rstrip("/") or "/"

    def isdir(self, path: str) -> bool:
        """Whether there is a folder."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether there is a file."""
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def walk(self, path: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Walk through folders, as fsspec does; a folder that cannot be listed is an error."""
        return iter(super().walk(path, *arguments, **{"on_error": _raise_unless_missing, **options}))

    def mv(self, path1: str, path2: str, *, overwrite: bool = False, **_options: Any) -> None:
        """Rename a file or a folder, in one step of the NameNode.

        Args:
            overwrite: Take the place of a file that is there.

        Raises:
            FileExistsError: Something is there and `overwrite` is not set.
        """
        before = self.info(path1)

        def attempt() -> None:
            with _sentences(self.unstrip_protocol(path2)):
                try:
                    self.client.rename(self._strip_protocol(path1), self._strip_protocol(path2), overwrite)
                except FileNotFoundError:
                    # Done already, if an answer was lost: hdfs-native itself repeats a call once.
                    if not self._is(path2, before):
                        raise

        retried(attempt, self.unstrip_protocol(path2))

    def _is(self, path: str, before: dict[str, Any]) -> bool:
        """Whether `path` is what `before` described under another name; renaming keeps size and time."""
        known = ("size", "modification_time", "type", "owner")
        try:
            found = self.info(path)
        except FileNotFoundError:
            return False
        return all(found[key] == before[key] for key in known)

    def _open(self, path: str, mode: str = "rb", *_arguments: Any, **options: Any) -> Any:
        url, path = self.unstrip_protocol(path), self._strip_protocol(path)
        if mode == "rb":
            return _Reader(functools.partial(self.client.inner.read, path), url)
        if mode != "wb":
            raise ValueError(f"{url}: HDFS is opened for rb or wb here, not for {mode}.")
        known = ("overwrite", "replication", "block_size", "permission")
        settings = {key: value for key, value in options.items() if key in known and value is not None}
        create = functools.partial(self.client.inner.create, path)
        return _Writer(create, WriteOptions(**{"overwrite": True, **settings}), url)


def _raise_unless_missing(error: BaseException) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class _Reader(FileReader):
    """Reads on where it was, from a newly opened file, when the storage comes back."""

    def __init__(self, open_file: Callable[[], Any], url: str) -> None:
        self._open_file, self._url = open_file, url
        self._retried(self._reopen)

    def _reopen(self, position: int = 0) -> None:
        super().__init__(self._open_file())
        self.inner.seek(position)

    def _retried(self, operation: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            with _sentences(self._url):
                return operation()

        return retried(attempt, self._url)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all that are left if -1."""
        position, attempts = self.tell(), itertools.count()

        def read() -> bytes:
            if next(attempts):  # the DataNodes that the open file knows may be gone
                self._reopen(position)
            return bytes(self.inner.read(size))

        return bytes(self._retried(read))


class _Writer(FileWriter):
    """Writes a file once; after a failure it is given up and only waits to be removed."""

    def __init__(self, create: Callable[[WriteOptions], Any], options: WriteOptions, url: str) -> None:
        self._url, self._ended = url, True  # nothing to close where creating fails

        def attempt() -> Any:
            with _sentences(url):
                return create(options)

        super().__init__(retried(attempt, url))
        self._ended = False

    def write(self, content: Any) -> int:
        """Write all of `content`."""
        try:
            with _sentences(self._url):
                # Of anything but bytes hdfs-native takes one byte after the other, ten times as slowly.
                return super().write(bytes(content))
        except BaseException:
            self._ended = True
            raise

    def close(self) -> None:
        """Finish the file; only once, since closing what has failed takes many seconds to fail again."""
        if not self._ended:
            self._ended = True
            with _sentences(self._url):
                super().close()


_kept: list[Any] = []


def _keep_filesystems() -> None:
    """Hold every HDFS filesystem while this process forks, as it does to start Spark's JVM.

    fsspec forgets its filesystems in the child. With the last reference gone, hdfs-native's client would wait
    there, for ever, for threads that only the parent has.
    """
    for kind in (HdfsFileSystem, Hdfs):
        _kept.extend(kind._cache.values())


os.register_at_fork(before=_keep_filesystems, after_in_parent=_kept.clear)
