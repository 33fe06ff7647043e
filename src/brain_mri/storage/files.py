"""Files and folders that appear whole or not at all, on any filesystem that fsspec knows.

Everything is written beside its final place, verified by reading it back, and renamed. A reader therefore
sees the old content or the new content and never a part of either; a broken-off write leaves only a hidden
temporary behind, which `sweep` removes.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem

from brain_mri.storage.object_stores import is_object_store, upload
from brain_mri.storage.retry import no_repeats, retried
from brain_mri.storage.verification import HashedStream, check_written

logger = logging.getLogger(__name__)

# Others in this process, such as Kedro-Viz, get HDFS with our patience and our guard against forks too.
fsspec.register_implementation("hdfs", "brain_mri.storage.hdfs.Hdfs", clobber=True)

COMPLETE = "_SUCCESS"
"""Name of the mark that a folder of parts is complete; Spark writes and understands the same."""

_BYTES = "bytes://"  # the scheme of local paths that are no UTF-8, percent-encoded
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.(?P<kind>tmp|old)")
_SWEPT_LEVELS = 3  # <root>/<layer>/<versioned folder>/ is the deepest place where a name is swapped
_USERS_FOLDER = "01_raw"


def open_filesystem(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a URL or local path, and the path on it.

    Args:
        url: Local path, fsspec URL, or what `local_url` gave. A local path is taken literally: fsspec alone
            would read `a::b` as two URLs. So is one on HDFS (see `brain_mri.storage.hdfs`).
        options: Options of the filesystem; on HDFS, Hadoop properties.

    Raises:
        StorageError: It is on HDFS, and nothing says where its NameNode is.

    Example:
        >>> filesystem, path = open_filesystem("/data/scans")
        >>> path
        '/data/scans'
    """
    if url.startswith("hdfs://"):
        from brain_mri.storage.hdfs import open_hdfs

        return open_hdfs(url, **options)
    if url.startswith(_BYTES):
        return LocalFileSystem(**options), os.fsdecode(unquote_to_bytes(url.removeprefix(_BYTES)))
    if "://" not in url or url.startswith("file://"):
        return LocalFileSystem(**options), str(LocalFileSystem._strip_protocol(url))
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)


def place_of(url: str) -> str:
    """Filesystem and path: the same text whether a slash ends a URL, or the default host stands in it.

    Example:
        >>> place_of("/photographs/") == place_of("file:///photographs")
        True
    """
    filesystem, path = open_filesystem(url)
    protocol = filesystem.protocol
    kind = protocol if isinstance(protocol, str) else protocol[0]
    # An HDFS has its NameNode among its options, whether the URL names it or the configuration.
    return f"{filesystem.storage_options.get('fs.defaultFS', kind)}:{path.rstrip('/')}"


def local_url(path: str) -> str:
    """A local path as text that tables and JSON can hold; `open_filesystem` finds the same file by it.

    It is the path itself, but where a name is no UTF-8 (as old archives leave them) it is percent-encoded.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote(os.fsencode(path))
    return path


def temporary_name(path: str, kind: str = "tmp") -> str:
    """A hidden name beside `path`: Spark, pyarrow and our own readers pass over it, `sweep` knows it."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{uuid.uuid4().hex[:12]}.{kind}"


@contextmanager
def replace_file(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[HashedStream]:
    """Write a file beside `path`; on success it takes the place of `path`, on failure it goes.

    An object store knows no renaming, and shows a file when all of it is there: it goes to its place at once,
    in chunks, and appears with the last one.

    What was written is read back and compared, a chunk at a time, so a file may be larger than memory. For
    the same reason it cannot be written again from here when a DataNode is lost on the way: whoever fills
    the stream does the whole of it once more (`retried` around it, as `write_file`, or a task that Spark
    repeats).

    Yields:
        A stream to write to.

    Raises:
        CorruptWriteError: The storage returned other bytes than were written. The old file is untouched, but
            in an object store, where the new one has taken its place.
        StorageError: The storage failed. The old file is untouched.

    Example:
        >>> with replace_file(filesystem, "/data/scans.bin") as stream:
        ...     stream.write(content)
    """
    if is_object_store(filesystem):
        with upload(filesystem, path) as written:
            yield written
        check_written(filesystem, path, written, path)
        return
    temporary = temporary_name(path)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with filesystem.open(temporary, "wb") as stream:
            written = HashedStream(stream)
            yield written
        check_written(filesystem, temporary, written, path)
        rename(filesystem, temporary, path)
    except BaseException:
        _discard(filesystem, temporary)
        raise


def write_file(filesystem: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Write a whole file: beside, read back and compared, then renamed over the old one.

    Where the storage fails and may come back, the whole file is written again.

    Raises:
        CorruptWriteError: The storage returned other bytes than were written. The old file is untouched, but
            in an object store, where the new one has taken its place.
        StorageError: The storage still fails. The old file is untouched.
    """

    def write() -> None:
        with replace_file(filesystem, path) as stream:
            stream.write(content)

    retried(write, path)


def read_file(filesystem: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Read a whole file."""
    with filesystem.open(path, "rb") as stream:
        return bytes(stream.read())


def rename(filesystem: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    """Rename a file over another.

    On a local disk and on HDFS this is atomic. Elsewhere it is what the filesystem makes of it: object stores
    put the new file over the old one, others refuse while there is one. There the old file is removed first,
    and a reader (or a kill) between the two steps finds none.
    """
    if isinstance(filesystem, LocalFileSystem):
        filesystem.mv(source, target)
        return
    if filesystem.protocol == "hdfs":
        filesystem.mv(source, target, overwrite=True)
        return
    try:
        filesystem.mv(source, target)
    except OSError:
        if not (filesystem.exists(source) and filesystem.exists(target)):
            raise
    if filesystem.exists(source):  # refused, aloud or in silence
        filesystem.rm(target)
        filesystem.mv(source, target)


def remove(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    """Remove a file or a folder with everything in it, if it is there."""
    with suppress(FileNotFoundError):
        filesystem.rm(path, recursive=True)


def _discard(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    """Remove a temporary after a failure; what cannot be removed now is swept by a later run."""
    with suppress(OSError), no_repeats():
        remove(filesystem, path)


@contextmanager
def replace_folder(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[str]:
    """Fill a folder beside `path`; on success it takes the place of `path`, on failure it goes.

    The swap is two renames. A kill between them leaves no folder at `path`, until `sweep` puts the old one
    back.

    Yields:
        The path of the empty folder to fill.

    Example:
        >>> with replace_folder(filesystem, "/data/scans.parquet") as staging:
        ...     write_file(filesystem, f"{staging}/part-00000.parquet", content)
    """
    staging, old = temporary_name(path), temporary_name(path, "old")
    filesystem.makedirs(staging, exist_ok=True)
    try:
        yield staging
    except BaseException:
        _discard(filesystem, staging)
        raise
    if filesystem.exists(path):
        filesystem.mv(path, old, recursive=True)
    filesystem.mv(staging, path, recursive=True)
    remove(filesystem, old)


def sweep(root: str, levels: int = _SWEPT_LEVELS, **options: Any) -> int:
    """Remove what killed runs left behind below a storage root.

    Call it while nothing writes there, so when the run lock has been taken. The user's raw data is not looked
    at. A folder whose swap was cut short (see `replace_folder`) is put back as it was.

    Args:
        root: Local path or fsspec URL.
        levels: Of folders that are looked at, this one included.
        options: Options of its filesystem.

    Returns:
        Number of leftovers removed or put back.

    Example:
        >>> sweep("data")
        0
    """
    filesystem, path = open_filesystem(root, **options)
    return _sweep(filesystem, path, levels) if filesystem.isdir(path) else 0


def _sweep(filesystem: fsspec.AbstractFileSystem, folder: str, levels: int) -> int:
    count = 0
    for entry in filesystem.ls(folder, detail=True):
        path = str(entry["name"]).rstrip("/")
        leftover = _LEFTOVER.fullmatch(path.rpartition("/")[2])
        if leftover:
            final = f"{folder.rstrip('/')}/{leftover['name']}"
            if leftover["kind"] == "old" and not filesystem.exists(final):
                logger.warning("Putting back %s: an earlier run was killed while it was replaced.", final)
                filesystem.mv(path, final, recursive=True)
            else:
                logger.info("Removing %s, which a killed run left behind.", path)
                remove(filesystem, path)
            count += 1
        elif entry["type"] == "directory" and levels > 1 and not path.endswith(f"/{_USERS_FOLDER}"):
            count += _sweep(filesystem, path, levels - 1)
    return count
