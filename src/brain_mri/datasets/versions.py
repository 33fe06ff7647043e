"""A catalog entry whose versions are folders that appear whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import JSONPreview

from brain_mri.storage.files import open_filesystem, read_file, replace_folder, write_file

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class FolderVersion:
    """A small picklable handle to one version; reads a file when asked for it.

    Attributes:
        url: Where the version's folder is.
        version: Its name, as `kedro run --load-versions` takes it.
        checksums: sha256 of every file by its name.
        options: Options of the folder's filesystem.
    """

    url: str
    version: str
    checksums: Mapping[str, str]
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def names(self) -> list[str]:
        """The files of the version."""
        return sorted(self.checksums)

    def read(self, name: str) -> bytes:
        """Read one file and verify it.

        Raises:
            DatasetError: The version has no such file, or the file is not the one that was saved.
        """
        if name not in self.checksums:
            raise DatasetError(
                f"Version {self.version} has no file {name!r}; it has {', '.join(self.names())}."
            )
        filesystem, path = open_filesystem(self.url, **self.options)
        content = read_file(filesystem, f"{path}/{name}")
        found = hashlib.sha256(content).hexdigest()
        if found != self.checksums[name]:
            raise DatasetError(
                f"{path}/{name} is damaged: its sha256 is {found}, saved was {self.checksums[name]}. "
                "Load another version (`--load-versions`) or train again."
            )
        return content


class VersionedFolderDataset(AbstractVersionedDataset[Mapping[str, bytes], FolderVersion]):
    """Files that belong together, a folder a version: `<filepath>/<version>/<file>`.

    A version is written beside and renamed, its `checksums.json` last; without that file it does not exist.

    Example:
        ```yaml
        classifier:
          type: brain_mri.datasets.VersionedFolderDataset
          filepath: ${globals:storage}/06_models/classifier
          versioned: true
        ```

        >>> dataset = VersionedFolderDataset(filepath="/tmp/classifier", version=Version(None, None))
        >>> dataset.save({"recipe.json": b"{}"})
        >>> dataset.load().read("recipe.json")
        b'{}'
    """

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._url = filepath
        self._options = {**(fs_args or {}), **(credentials or {})}
        self.metadata = metadata
        filesystem, path = open_filesystem(filepath, **self._options)
        super().__init__(
            filepath=PurePosixPath(path),
            version=version or Version(None, None),
            exists_function=filesystem.exists,
            glob_function=self._list_marks,
        )

    def _get_versioned_path(self, version: str) -> PurePosixPath:
        # The checksums are the completion mark, so Kedro's own listing of versions passes over
        # half-written ones.
        return PurePosixPath(super()._get_versioned_path(version)).with_name(CHECKSUMS)

    def _list_marks(self, pattern: str) -> list[str]:
        """The completion marks that Kedro asks for as `<filepath>/*/checksums.json`.

        They are listed and not globbed: a storage root may hold `[` or `*`. Hidden folders are temporaries.
        """
        filesystem, path = open_filesystem(self._url, **self._options)
        if not filesystem.isdir(path):
            return []
        folders = [str(folder).rstrip("/") for folder in filesystem.ls(path, detail=False)]
        return [f"{folder}/{CHECKSUMS}" for folder in folders if "/." not in folder[len(path) :]]

    def load(self) -> FolderVersion:
        """Return a handle to the version asked for, by default the latest."""
        mark = self._get_load_path()
        filesystem, _ = open_filesystem(self._url, **self._options)
        checksums = json.loads(read_file(filesystem, str(mark)))
        url = filesystem.unstrip_protocol(str(mark.parent))
        return FolderVersion(url, mark.parent.name, checksums, self._options)

    def save(self, data: Mapping[str, bytes]) -> None:
        """Write a new version."""
        mark = self._get_save_path()
        filesystem, _ = open_filesystem(self._url, **self._options)
        with replace_folder(filesystem, str(mark.parent)) as staging:
            for name, content in data.items():
                write_file(filesystem, f"{staging}/{name}", content)
            checksums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(data.items())}
            write_file(filesystem, f"{staging}/{CHECKSUMS}", json.dumps(checksums, indent=2).encode())

    def _exists(self) -> bool:
        try:
            return bool(self._exists_function(str(self._get_load_path())))
        except DatasetError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._url, "version": self._version}

    def preview(self) -> JSONPreview:
        """Versions and files, for Kedro-Viz."""
        latest = self.load()
        return JSONPreview(
            json.dumps({"versions": self.list_versions(full_path=False), "files": dict(latest.checksums)})
        )


class FolderVersionsDataset(AbstractDataset[None, tuple[FolderVersion, ...]]):
    """Handles to all versions that a `VersionedFolderDataset` has written, the oldest first.

    Example:
        ```yaml
        classifier_versions:
          type: brain_mri.datasets.FolderVersionsDataset
          filepath: ${globals:storage}/06_models/classifier
        ```
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._url = filepath
        self.metadata = metadata

    def load(self) -> tuple[FolderVersion, ...]:
        """Return the handles."""
        names = VersionedFolderDataset(filepath=self._url).list_versions(full_path=False)
        return tuple(
            VersionedFolderDataset(filepath=self._url, version=Version(name, None)).load()
            for name in sorted(names)
        )

    def save(self, data: None) -> None:
        """Refuse: versions are written one at a time."""
        raise DatasetError(f"{self._url}: versions are saved through their own catalog entry.")

    def _exists(self) -> bool:
        return True  # there may be none

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._url}
