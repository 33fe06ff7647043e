"""One run at a time per storage root."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psutil
from fsspec.implementations.local import LocalFileSystem

from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem, read_file, remove, temporary_name, write_file

logger = logging.getLogger(__name__)

_CLOCK_TOLERANCE = 2.0  # seconds; what the system says of a process' start can move by clock corrections

_held: weakref.WeakSet[RunLock] = weakref.WeakSet()
"""The locks of this process that are held; one that nobody refers to any more leaves by itself."""


class LockedError(RuntimeError):
    """Another run holds the storage root."""


class RunLock:
    """A file `.run.lock` under the storage root that says who is running there.

    A lock whose process is gone from this machine is taken over, and so is one that an interrupted run left
    in this very process (Ctrl-C in a notebook). One from another machine, or of a process that still lives,
    is respected: two runs on one root would overwrite each other's outputs.

    Example:
        >>> lock = RunLock("data")
        >>> lock.acquire()
        >>> lock.release()
    """

    def __init__(self, root: str) -> None:
        self._filesystem, self._root = open_filesystem(root)
        self._path = f"{self._root}/.run.lock"
        self._content = b""

    def acquire(self, *, break_lock: bool = False) -> None:
        """Take the lock.

        Args:
            break_lock: Take it whoever holds it.

        Raises:
            LockedError: Another run holds it; the message says which, and how to break the lock.
        """
        self._filesystem.makedirs(self._root, exist_ok=True)
        if self._filesystem.exists(self._path):
            content = self._read()
            holder = _parse(content)
            if not (break_lock or self._is_left_by_this_process(holder) or _is_gone(holder)):
                raise LockedError(self._describe(holder))
            logger.warning("Taking over the lock that process %s left in %s.", holder.get("pid"), self._root)
            self._remove_dead(content)
        self._content = json.dumps(_this_process()).encode()
        self._create(self._content)
        for lock in [lock for lock in _held if lock._path == self._path]:
            _held.discard(lock)  # broken or left behind
        _held.add(self)

    def release(self) -> None:
        """Give the lock back, if this object still holds it."""
        if self in _held:
            _held.discard(self)
            try:
                if read_file(self._filesystem, self._path) == self._content:
                    remove(self._filesystem, self._path)
            except FileNotFoundError:
                pass
            except StorageError as error:  # the run has ended; what it did counts
                logger.warning("The lock %s stays, a later run takes it over: %s", self._path, error)

    def _read(self) -> bytes:
        try:
            return read_file(self._filesystem, self._path)
        except FileNotFoundError:
            raise self._beaten() from None

    def _create(self, content: bytes) -> None:
        """Write the lock file, unless there is one.

        On a local disk and on HDFS the system sees to it that only one run succeeds: the disk creates a file
        exclusively, the NameNode renames onto a name only where there is nothing (and so the lock is never
        half written or open, even if the run is killed meanwhile). Elsewhere there is no such promise through
        fsspec: of two runs that start within the same few milliseconds both may go on.
        """
        if isinstance(self._filesystem, LocalFileSystem):
            try:
                stream = self._filesystem.open(self._path, "xb")
            except FileExistsError:
                raise self._beaten() from None
            try:
                with stream:
                    stream.write(content)
            except BaseException:
                remove(self._filesystem, self._path)
                raise
            return
        temporary = temporary_name(self._path)
        try:
            write_file(self._filesystem, temporary, content)
            if self._filesystem.exists(self._path):
                raise self._beaten()
            self._filesystem.mv(temporary, self._path)
        except (FileExistsError, FileNotFoundError):  # the latter where a faster run sweeps already
            raise self._beaten() from None
        finally:
            remove(self._filesystem, temporary)

    def _remove_dead(self, content: bytes) -> None:
        """Remove a dead lock that holds `content`.

        It is renamed first: of several runs that found it, one succeeds, and a lock that another run has
        taken meanwhile goes back to its place.
        """
        dead = temporary_name(self._path)
        try:
            self._filesystem.mv(self._path, dead)
            if read_file(self._filesystem, dead) != content:
                self._filesystem.mv(dead, self._path)
                raise self._beaten()
            remove(self._filesystem, dead)
        except (FileNotFoundError, FileExistsError):  # a faster run took it, or sweeps already
            raise self._beaten() from None

    def _is_left_by_this_process(self, holder: dict[str, Any]) -> bool:
        """Whether the lock is of this process, and no run here holds it any more."""
        ours = (holder.get("pid"), holder.get("host")) == (os.getpid(), socket.gethostname())
        return ours and not any(lock._path == self._path for lock in _held if lock is not self)

    def _beaten(self) -> LockedError:
        return LockedError(f"Another run took {self._root} at this moment. Wait for it and try again.")

    def _describe(self, holder: dict[str, Any]) -> str:
        remedy = "repeat the command with --params=run.break_lock=true."
        if not holder:
            return (
                f"{self._path} is empty or cannot be read, so it is not known which run uses {self._root}: "
                "one that starts at this moment, or one that was killed (or found the disk full) while it "
                f"started. Try again; if no other run is there, {remedy}"
            )
        return (
            f"Another run uses {self._root}: process {holder.get('pid')} on {holder.get('host')}, "
            f"started {holder.get('started')} as `{holder.get('command')}`. Wait for it, use another "
            f"storage root, or, if you know that it has died, {remedy}"
        )


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def _parse(content: bytes) -> dict[str, Any]:
    """Who holds the lock; nothing where the file does not say it."""
    with suppress(ValueError):
        holder = json.loads(content)
        if isinstance(holder, dict):
            return holder
    return {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote the lock ran on this machine and no longer lives."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        created = psutil.Process(int(holder["pid"])).create_time()
        return abs(created - float(holder["created"])) > _CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return True
    except (KeyError, TypeError, ValueError):
        return False
