"""What all our datasets share: a place on some filesystem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import fsspec
from kedro.io import AbstractDataset, DatasetError

from brain_mri.storage.files import COMPLETE, open_filesystem, read_file

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


def read_mark(url: str, options: Mapping[str, Any], what: str, remedy: str) -> dict[str, Any]:
    """What the completion mark of a folder of parts says.

    Args:
        url: Of the folder.
        options: Of its filesystem.
        what: The folder holds when it is complete.
        remedy: A command that makes it so.

    Raises:
        DatasetError: There is no mark.
    """
    filesystem, path = open_filesystem(url, **options)
    try:
        return dict(json.loads(read_file(filesystem, f"{path}/{COMPLETE}")))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is no complete {what}: its {COMPLETE} is missing. Run {remedy} first."
        ) from error
