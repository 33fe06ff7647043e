"""Thumbnails of all scans, on this disk: those of a million are four gigabytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from brain_mri.imaging.inspect import THUMBNAIL_SIDE

_BYTES = THUMBNAIL_SIDE**2


class ThumbnailStore:
    """Looks up thumbnails by scan id; they lie in a temporary file (in `TMPDIR`) that goes with this object.

    Args:
        tables: Columns `scan_id` and `thumbnail` (empty where a file was refused); one is held at a time.

    Example:
        >>> store = ThumbnailStore([pa.table({"scan_id": ["a"], "thumbnail": [bytes(4096)]})])
        >>> store(["a"]).shape
        (1, 4096)
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        ids: list[str] = []
        for table in tables:
            for scan_id, thumbnail in zip(table["scan_id"], table["thumbnail"], strict=True):
                if len(content := thumbnail.as_py() or b"") == _BYTES:
                    self._file.write(content)
                    ids.append(scan_id.as_py())
        self._file.flush()
        places = pd.Series(np.arange(len(ids)), index=pd.Index(ids, dtype=object))
        self._places = places[~places.index.duplicated()]

    def __contains__(self, scan_id: object) -> bool:
        """Whether a scan has a thumbnail."""
        return scan_id in self._places.index

    def __call__(self, scan_ids: Sequence[str]) -> NDArray[np.uint8]:
        """The thumbnails of some scans, uint8 (n, 4096), 64×64 grey levels row by row.

        Raises:
            KeyError: One of the scans has none.
        """
        found = np.empty((len(scan_ids), _BYTES), np.uint8)
        for row, place in enumerate(self._places.loc[list(scan_ids)]):
            found[row] = np.frombuffer(os.pread(self._file.fileno(), _BYTES, int(place) * _BYTES), np.uint8)
        return found
