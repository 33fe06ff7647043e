"""One run at a time per storage root."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime

import psutil

from brain_mri.storage.files import open_filesystem, read_file, remove

logger = logging.getLogger(__name__)


class LockedError(RuntimeError):
    """Another run holds the storage root."""


class RunLock:
    """A file `.run.lock` under the storage root that says who is running there.

    A lock whose process is gone from this machine is taken over. One from another machine, or of a process
    that still lives, is respected: two runs on one root would overwrite each other's outputs.

    Example:
        >>> lock = RunLock("data")
        >>> lock.acquire()
        >>> lock.release()
    """

    def __init__(self, root: str) -> None:
        self._filesystem, self._root = open_filesystem(root)
        self._path = f"{self._root}/.run.lock"
        self._held = False

    def acquire(self, *, break_lock: bool = False) -> None:
        """Take the lock.

        Args:
            break_lock: Take it whoever holds it.

        Raises:
            LockedError: Another run holds it; the message says which, and how to break the lock.
        """
        self._filesystem.makedirs(self._root, exist_ok=True)
        if self._filesystem.exists(self._path):
            holder = json.loads(read_file(self._filesystem, self._path) or b"{}")
            if not break_lock and not _is_gone(holder):
                raise LockedError(
                    f"Another run uses {self._root}: process {holder.get('pid')} on {holder.get('host')}, "
                    f"started {holder.get('started')} as `{holder.get('command')}`. Wait for it, use another "
                    "storage root, or, if you know that it has died, repeat the command with "
                    "--params=run.break_lock=true."
                )
            logger.warning("Taking over the lock that process %s left in %s.", holder.get("pid"), self._root)
            remove(self._filesystem, self._path)
        holder = {
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv),
        }
        try:
            with self._filesystem.open(self._path, "xb") as stream:
                stream.write(json.dumps(holder).encode())
        except FileExistsError as error:
            raise LockedError(
                f"Another run took {self._root} at this moment. Wait for it and try again."
            ) from error
        self._held = True

    def release(self) -> None:
        """Give the lock back, if this object holds it."""
        if self._held:
            remove(self._filesystem, self._path)
            self._held = False


def _is_gone(holder: dict[str, object]) -> bool:
    """Whether the process that wrote the lock ran on this machine and no longer lives."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(int(str(holder["pid"]))).create_time() != holder.get("created")
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError):
        return False
