"""What all our datasets share: a place on some filesystem."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import fsspec
from kedro.io import AbstractDataset

from brain_mri.storage.files import open_filesystem

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class LocatedDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A catalog entry at a path on any filesystem.

    Args:
        filepath: Local path or fsspec URL (`hdfs:///…`, `s3://…`).
        credentials: Options of the filesystem that must not stand in the catalog.
        fs_args: Further options of the filesystem.
        metadata: Ignored here; Kedro-Viz reads its layer from it.
    """

    def __init__(
        self,
        *,
        filepath: str,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = filepath
        self._options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The filesystem, and the path on it."""
        return open_filesystem(self._filepath, **self._options)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
