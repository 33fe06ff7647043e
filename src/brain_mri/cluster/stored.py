"""What HDFS keeps on this machine's disk, and whether a cluster may be started on it."""

from __future__ import annotations

import re
from pathlib import Path

from brain_mri.cluster.connection import ClusterError


class StoredDataError(ClusterError):
    """A cluster started on these folders would miss blocks or lose them."""


def namenode_folder(storage: Path) -> Path:
    """The folder of the NameNode: which files there are, and which blocks make them up."""
    return storage / "name"


def is_formatted(storage: Path) -> bool:
    """Whether the NameNode's folder holds anything; only an empty one is ever formatted."""
    return _holds_something(namenode_folder(storage))


def check_stored_data(storage: Path, datanodes: int) -> None:
    """Refuse to start a cluster where blocks would be missing or lost.

    Args:
        storage: The folder with those of the NameNode and the DataNodes.
        datanodes: How many DataNodes are to be started.

    Raises:
        StoredDataError: The folders of DataNodes are more than `datanodes`, or of another NameNode, or of one
            that is gone.
    """
    name = namenode_folder(storage)
    filled = {number: path for number, path in _data_folders(storage).items() if _holds_something(path)}
    if filled and max(filled) > datanodes:
        raise StoredDataError(
            f"{storage} holds the data of {max(filled)} DataNodes, but {datanodes} were asked for, and "
            f"blocks would be missing. Give --datanodes {max(filled)}, or remove all: kedro cluster clean"
        )
    if filled and not is_formatted(storage):
        raise StoredDataError(
            f"{next(iter(filled.values()))} holds blocks, but {name}, which says what files they make up, is "
            "empty. Put that folder back, or remove the data: kedro cluster clean"
        )
    for path in filled.values():
        if _identity(path) not in ("", _identity(name)):
            raise StoredDataError(
                f"{path} belongs to the filesystem {_identity(path)}, but {name} to {_identity(name)}. "
                "Put the folders of one filesystem together, or remove the data: kedro cluster clean"
            )


def _data_folders(storage: Path) -> dict[int, Path]:
    matches = ((re.fullmatch(r"data-(\d+)", path.name), path) for path in sorted(storage.glob("data-*")))
    return {int(match[1]): path for match, path in matches if match}


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _identity(folder: Path) -> str:
    """The identity of the filesystem that Hadoop wrote into a folder; empty where there is none."""
    version = folder / "current" / "VERSION"
    if not version.is_file():
        return ""
    match = re.search(r"^clusterID=(.+)$", version.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return match[1] if match else ""
