"""Filesystems with the manners that datasets and tasks must cope with."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from brain_mri.storage.faults import StorageError


class KeyedDisk(LocalFileSystem):
    """A disk that opens to those who have the key, as a cloud does."""

    protocol = "keyed"

    def __init__(self, key: str = "", **arguments):  # type: ignore[no-untyped-def]
        if key != "secret":
            raise PermissionError("no key was given")
        super().__init__(**arguments)

    @classmethod
    def _strip_protocol(cls, path):  # type: ignore[no-untyped-def]
        return super()._strip_protocol(str(path).removeprefix("keyed://"))

    def unstrip_protocol(self, name):  # type: ignore[no-untyped-def]
        return f"keyed://{self._strip_protocol(name)}"


class FailingDisk(LocalFileSystem):
    """A disk that is gone for a moment, or for good, when a file with a certain name is opened."""

    protocol = "failing"
    name = ""
    faults = 0
    patience = 20.0

    def open(self, path, mode="rb", **arguments):  # type: ignore[no-untyped-def]
        if FailingDisk.name in path and FailingDisk.faults:
            FailingDisk.faults -= 1
            raise StorageError(f"{path}: the disk is gone", FailingDisk.patience)
        return super().open(path, mode, **arguments)

    @classmethod
    def _strip_protocol(cls, path):  # type: ignore[no-untyped-def]
        return super()._strip_protocol(str(path).removeprefix("failing://"))

    def unstrip_protocol(self, name):  # type: ignore[no-untyped-def]
        return f"failing://{self._strip_protocol(name)}"


@pytest.fixture
def failing_disk(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Registers `failing://`; `failing_disk(name, faults, patience)` lets opening it fail so many times."""
    fsspec.register_implementation("failing", FailingDisk, clobber=True)

    def fail(name: str, faults: int, patience: float = 20.0) -> type[FailingDisk]:
        for attribute, value in (("name", name), ("faults", faults), ("patience", patience)):
            monkeypatch.setattr(FailingDisk, attribute, value)
        return FailingDisk

    return fail


@pytest.fixture
def keyed_disk() -> dict[str, str]:
    """Registers `keyed://`; returns the options that open it."""
    fsspec.register_implementation("keyed", KeyedDisk, clobber=True)
    with pytest.raises(PermissionError):
        fsspec.core.url_to_fs("keyed:///tmp")
    return {"key": "secret"}
