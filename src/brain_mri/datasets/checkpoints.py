"""Where a training keeps what it needs to go on after it was broken off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kedro.io import DatasetError

from brain_mri.datasets.located import LocatedDataset
from brain_mri.storage.files import open_filesystem, read_file, remove, write_file


@dataclass(frozen=True)
class CheckpointStore:
    """A small picklable handle to a folder of named bytes; whoever trains writes through it.

    Attributes:
        url: The folder; it need not be there yet.
        options: Options of its filesystem.

    Example:
        >>> store = CheckpointStore("/tmp/checkpoints")
        >>> store.save("state-01-0003.npz", b"state")
        >>> store.load("state-01-0003.npz")
        b'state'
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def save(self, name: str, content: bytes) -> None:
        """Write a file whole, in place of what had the name before."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        write_file(filesystem, f"{folder}/{name}", content)

    def load(self, name: str) -> bytes | None:
        """Read a file; None where there is none of that name."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        try:
            return read_file(filesystem, f"{folder}/{name}")
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Names of the files, sorted; what is only half written is not among them."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        try:
            names = [str(entry).rpartition("/")[2] for entry in filesystem.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        filesystem, folder = open_filesystem(self.url, **self.options)
        remove(filesystem, f"{folder}/{name}")

    def clear(self) -> None:
        """Remove the folder with everything in it."""
        remove(*open_filesystem(self.url, **self.options))


class CheckpointStoreDataset(LocatedDataset[None, CheckpointStore]):
    """A folder of checkpoints as a `CheckpointStore`, the handle that training writes through.

    Example:
        ```yaml
        checkpoints:
          type: brain_mri.datasets.CheckpointStoreDataset
          filepath: ${globals:storage}/06_models/checkpoints
        ```
    """

    def load(self) -> CheckpointStore:
        """Return the handle; nothing is read."""
        return CheckpointStore(self._filepath, self._options)

    def save(self, data: None) -> None:
        """Refuse: the training itself writes, while it runs."""
        raise DatasetError("Training writes checkpoints, through the handle that this entry loads.")

    def _exists(self) -> bool:
        return True  # an empty store is one: a resumed run must not look for the node that makes it
