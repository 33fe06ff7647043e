"""Whether a storage root can be used, found out before a run."""

from __future__ import annotations

import threading
import uuid

from brain_mri.storage.faults import StorageError, explain
from brain_mri.storage.files import open_filesystem, remove, temporary_name
from brain_mri.storage.hadoop import namenode
from brain_mri.storage.retry import no_repeats
from brain_mri.storage.verification import CorruptWriteError

__all__ = ["StorageError", "check_reachable", "explain"]

DEADLINE = 15.0
"""Seconds after which a storage root counts as unreachable."""


def check_reachable(root: str) -> None:
    """Write, read and remove a tiny hidden file below a storage root, which is created if need be.

    Nothing is repeated: who starts a run wants to know at once. It ends within `DEADLINE` seconds, even where
    something accepts connections and never answers.

    Args:
        root: Local path or fsspec URL.

    Raises:
        StorageError: It cannot be used; the message says where, why, and what to do.

    Example:
        >>> check_reachable("data")
    """
    problems: list[BaseException] = []

    def check() -> None:
        try:
            with no_repeats():
                try:
                    _write_read_remove(root)
                except FileNotFoundError:  # swept away by a run that takes the root at this moment
                    _write_read_remove(root)
        except BaseException as error:
            problems.append(error)  # raised below, in the caller's thread

    # hdfs-native waits for an answer without an end, and cannot be interrupted: it is left to its thread.
    thread = threading.Thread(target=check, name="check_reachable", daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if thread.is_alive():
        where = f"HDFS at {namenode(root)}" if root.startswith("hdfs://") else "The storage"
        raise StorageError(
            f"{where} does not answer: nothing could be written to {root} within {DEADLINE:.0f} s. It "
            "hangs, or something else listens at this address. Look at its log, and start it anew if need be."
        )
    for problem in problems:
        if isinstance(problem, OSError):
            raise explain(problem, root) from None
        raise problem


def _write_read_remove(root: str) -> None:
    filesystem, path = open_filesystem(root)
    filesystem.makedirs(path, exist_ok=True)
    file, content = temporary_name(f"{path}/check"), uuid.uuid4().bytes
    try:
        with filesystem.open(file, "wb") as stream:
            stream.write(content)
        with filesystem.open(file, "rb") as stream:
            found = stream.read()
    finally:
        remove(filesystem, file)
    if found != content:
        raise CorruptWriteError(f"wrote {content.hex()}, read {found.hex()}")
