"""Verification of what was written, by its content: a size can be right where the bytes are not."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import fsspec

_CHUNK = 2**22  # HDFS opens a connection for each


class CorruptWriteError(OSError):
    """What was read back after writing is not what was written."""


class HashedStream(io.RawIOBase):
    """Passes on what is written to it, and keeps its sha256 and its size in bytes."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, content: Any) -> int:
        """Write all of `content`."""
        self.sha256.update(content)
        self.size += len(content)
        self._stream.write(content)
        return len(content)


def check_written(
    filesystem: fsspec.AbstractFileSystem, temporary: str, written: HashedStream, path: str
) -> None:
    """Read back what was written and compare.

    Args:
        temporary: Where it was written.
        written: What it was written through.
        path: What it shall be called, for the error.

    Raises:
        CorruptWriteError: It is not the same.
    """
    found = file_sha256(filesystem, temporary)
    if found != written.sha256.hexdigest():
        raise CorruptWriteError(
            f"{path}: wrote {written.size} bytes with sha256 {written.sha256.hexdigest()}, read back "
            f"{found}. The previous file is untouched; check the disk or the DataNodes and run again."
        )


def file_sha256(filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """sha256 of what is stored, as hexadecimal digits; read a chunk at a time."""
    found = hashlib.sha256()
    with filesystem.open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
