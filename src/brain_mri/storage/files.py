"""Files and folders that appear whole or not at all, on any filesystem that fsspec knows.

Everything is written beside its final place, verified by reading it back, and renamed. A reader therefore
sees the old content or the new content and never a part of either; a broken-off write leaves only a hidden
temporary behind.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

COMPLETE = "_SUCCESS"
"""Name of the mark that a folder of parts is complete; Spark writes and understands the same."""


class CorruptWriteError(OSError):
    """What was read back after writing is not what was written."""


def open_filesystem(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a URL or local path, and the path on it.

    Example:
        >>> filesystem, path = open_filesystem("/data/scans")
        >>> path
        '/data/scans'
    """
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)


def temporary_name(path: str) -> str:
    """A hidden name beside `path`: Spark, pyarrow and our own readers pass over it."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{uuid.uuid4().hex[:12]}.tmp"


def write_file(filesystem: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Write a whole file: beside, read back and compared, then renamed over the old one.

    Raises:
        CorruptWriteError: The storage returned other bytes than were written. The old file is untouched.
    """
    temporary = temporary_name(path)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with filesystem.open(temporary, "wb") as stream:
            stream.write(content)
        _check_written(path, content, read_file(filesystem, temporary))
        rename(filesystem, temporary, path)
    except BaseException:
        remove(filesystem, temporary)
        raise


def _check_written(path: str, content: bytes, read_back: bytes) -> None:
    expected, found = hashlib.sha256(content).hexdigest(), hashlib.sha256(read_back).hexdigest()
    if found != expected:
        raise CorruptWriteError(
            f"{path}: wrote {len(content)} bytes with sha256 {expected}, read back {found}. "
            "The previous file is untouched; check the disk or the DataNodes and run again."
        )


def read_file(filesystem: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Read a whole file."""
    with filesystem.open(path, "rb") as stream:
        return bytes(stream.read())


def rename(filesystem: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    """Rename a file over another; atomic where the filesystem's rename is."""
    if not isinstance(filesystem, LocalFileSystem) and filesystem.exists(target):
        filesystem.rm(target)
    filesystem.mv(source, target)


def remove(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    """Remove a file or a folder with everything in it, if it is there."""
    with suppress(FileNotFoundError):
        filesystem.rm(path, recursive=filesystem.isdir(path))


@contextmanager
def replace_folder(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[str]:
    """Fill a folder beside `path`; on success it takes the place of `path`, on failure it goes.

    Yields:
        The path of the empty folder to fill.

    Example:
        >>> with replace_folder(filesystem, "/data/scans.parquet") as staging:
        ...     write_file(filesystem, f"{staging}/part-00000.parquet", content)
    """
    staging, old = temporary_name(path), temporary_name(path)
    filesystem.makedirs(staging, exist_ok=True)
    try:
        yield staging
    except BaseException:
        remove(filesystem, staging)
        raise
    if filesystem.exists(path):
        filesystem.mv(path, old, recursive=True)
    filesystem.mv(staging, path, recursive=True)
    remove(filesystem, old)
