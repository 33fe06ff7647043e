"""Filesystems with the manners that datasets must cope with."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem


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


@pytest.fixture
def keyed_disk() -> dict[str, str]:
    """Registers `keyed://`; returns the options that open it."""
    fsspec.register_implementation("keyed", KeyedDisk, clobber=True)
    with pytest.raises(PermissionError):
        fsspec.core.url_to_fs("keyed:///tmp")
    return {"key": "secret"}
