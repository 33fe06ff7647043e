"""Object stores: files appear there whole, and cannot be renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec

from brain_mri.storage.faults import PATIENCE, StorageError
from brain_mri.storage.verification import HashedStream

CHUNK = 8 * 2**20
"""Bytes that are sent at once: the store keeps each chunk, and only one that failed is sent again."""

_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
_KEEP_PIECES = {"s3", "s3a"}  # of uploads that were given up, and charge for them; elsewhere they expire


def is_object_store(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether files there appear whole, and are copied where they are renamed."""
    return _is(filesystem, _OBJECT_STORES)


@contextmanager
def upload(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[HashedStream]:
    """Send a file to an object store in chunks; it appears when the block ends without an error.

    fsspec's filesystems send a chunk again that failed. Where that does not help, whoever fills the stream
    does the whole of it once more (`retried`).

    Raises:
        StorageError: A chunk could not be sent.
    """
    url = filesystem.unstrip_protocol(path)
    with in_sentences(url, "sent"):
        stream = filesystem.open(path, "wb", block_size=CHUNK, autocommit=False)
    written = HashedStream(_Sent(stream, url))
    try:
        yield written
        with in_sentences(url, "sent"):
            stream.close()
            stream.commit()
    except BaseException:
        if _is(filesystem, _KEEP_PIECES):
            with suppress(Exception):
                stream.discard()
        stream.closed = True  # else it is finished, as far as it got, when it is forgotten
        raise
    filesystem.invalidate_cache()


class _Sent:
    """Hands on to a stream of fsspec, and raises sentences."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream, self._url = stream, url

    def write(self, content: bytes) -> None:
        """Write all of `content`."""
        with in_sentences(self._url, "sent"):
            self._stream.write(content)


@contextmanager
def in_sentences(url: str, done: str) -> Iterator[None]:
    """Turn what an object store's client raises within the block into sentences.

    Args:
        url: Of the file.
        done: What is done to it, as a participle.

    Raises:
        StorageError: It could not be done; worth to be repeated, but where it is forbidden.
        FileNotFoundError: There is no such file.
    """
    try:
        yield
    except (StorageError, FileNotFoundError):
        raise
    except Exception as error:  # of aiohttp, botocore, gcsfs: they have nothing in common
        what = str(error) or type(error).__name__
        if _is_forbidden(error):
            raise StorageError(
                f"{url} may not be {done}: {what}. Give the credentials that this process uses the right to "
                "it, or renew them where they have expired."
            ) from error
        raise StorageError(f"{url} could not be {done}: {what}.", PATIENCE) from error


def _is_forbidden(error: Exception) -> bool:
    """As s3fs says it, and as gcsfs does, with 403 and with 401."""
    said = str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or said or getattr(error, "code", None) in (401, 403)


def _is(filesystem: fsspec.AbstractFileSystem, protocols: set[str]) -> bool:
    protocol = filesystem.protocol
    return not protocols.isdisjoint({protocol} if isinstance(protocol, str) else protocol)
