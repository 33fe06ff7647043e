"""In which order rows of row groups are read: strands of them, shuffled a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Batch: TypeAlias = tuple[Any, ...]
"""Scan ids str (n,), labels int64 (n,), and an array (n, …) for every column of values."""


class Cut(NamedTuple):
    """Some rows of a row group."""

    part: str
    row_group: int
    start: int
    rows: int


class Strand:
    """Rows in their order, shuffled window by window, to be taken as many at a time as wanted."""

    def __init__(
        self,
        read: Callable[[Sequence[Cut]], Batch],
        windows: Iterator[list[Cut]],
        random: np.random.Generator | None,
    ) -> None:
        self._read, self._windows, self._random = read, windows, random
        self._rest: Batch = read(())

    def take(self, count: int) -> Batch:
        """The next rows; there must be as many."""
        parts = []
        while count > len(self._rest[0]):
            parts.append(self._rest)
            count -= len(self._rest[0])
            self._rest = self._read(next(self._windows))
            if self._random is not None:
                order = self._random.permutation(len(self._rest[0]))
                self._rest = _of(self._rest, order)
        parts.append(_of(self._rest, slice(count)))
        self._rest = _of(self._rest, slice(count, None))
        return joined(parts)


def _of(batch: Batch, rows: Any) -> Batch:
    return tuple(column[rows] for column in batch)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches as one."""
    filled = [batch for batch in batches if len(batch[0])] or batches[:1]
    if len(filled) == 1:
        return filled[0]
    return tuple(np.concatenate(column) for column in zip(*filled, strict=True))


def cut_rows(groups: Sequence[tuple[str, int, int]], start: int, stop: int) -> list[Cut]:
    """The rows from `start` to below `stop` of row groups, counted through in their order."""
    cuts, first = [], 0
    for part, number, rows in groups:
        low, high = max(start - first, 0), min(stop - first, rows)
        if low < high:
            cuts.append(Cut(part, number, int(low), int(high - low)))
        first += rows
    return cuts


def windows(cuts: list[Cut], rows: int) -> Iterator[list[Cut]]:
    """Gather cuts into windows of at most about `rows` rows."""
    window: list[Cut] = []
    for cut in cuts:
        if window and sum(each.rows for each in window) + cut.rows > rows:
            yield window
            window = []
        window.append(cut)
    if window:
        yield window
