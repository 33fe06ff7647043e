"""Trying again while the storage comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from brain_mri.storage.faults import PATIENCE, StorageError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE = 0.25  # seconds, doubled each time
_LONGEST_PAUSE = 2.0

_announced = {"at": -PATIENCE}
"""When it was last said that something is tried again."""

_repeats: ContextVar[bool] = ContextVar("repeats", default=True)


def retried(operation: Callable[[], T], what: str) -> T:
    """Do something with storage, again and again for about 25 s where the storage may come back.

    So a NameNode that restarts and a DataNode that is lost do not end a run. Nothing else is repeated: not
    a missing file, a permission, a quota, safe mode that someone has set, nor an error of the program.

    Args:
        operation: May be done several times, even if it had succeeded and only the answer was lost.
        what: What it works on, for the log.

    Raises:
        StorageError: It still fails.

    Example:
        >>> retried(lambda: 6 * 7, "an answer")
        42
    """
    started: float | None = None  # at the first failure: an attempt may itself take long to fail
    patience, pause = 0.0, _FIRST_PAUSE
    while True:
        try:
            return operation()
        except StorageError as error:
            now = time.monotonic()
            if started is None and error.patience and _repeats.get():
                started = now
                _announce(error)
            patience = max(patience, error.patience)
            if started is None or not error.patience or now - started > patience:
                error.patience = 0.0  # whoever repeats around this has had its time
                raise
        logger.debug("Trying %s again in %.2f s.", what, pause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _announce(error: StorageError) -> None:
    """Say it once, not once for each thread and step that meets it."""
    now = time.monotonic()
    new = now - _announced["at"] >= PATIENCE
    if new:
        _announced["at"] = now
    logger.log(
        logging.WARNING if new else logging.DEBUG, "Trying again for %.0f s: %s", error.patience, error
    )


@contextmanager
def no_repeats() -> Iterator[None]:
    """Within this block (of this thread) `retried` tries once: where someone waits for a yes or no."""
    token = _repeats.set(False)
    try:
        yield
    finally:
        _repeats.reset(token)
