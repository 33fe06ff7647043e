"""A tree of folders, in text: what lies where, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec

from brain_mri.storage.files import open_filesystem


def describe_tree(root: str, levels: int = 2, **options: Any) -> str:
    """Show the folders below a root, each with the number and the bytes of the files at any depth in it.

    Hidden files and folders are passed over.

    Args:
        root: Local path or fsspec URL.
        levels: How many levels of folders are shown; deeper ones count for those above them.
        options: Options of the filesystem.

    Returns:
        A line for the root and one a folder.

    Example:
        >>> print(describe_tree("hdfs:///user/ada/brain_mri", levels=1))  # doctest: +SKIP
        hdfs:///user/ada/brain_mri: 31 files, 123.3 MB
        ├── 02_intermediate: 29 files, 123.3 MB
        └── 08_reporting: 2 files, 0.1 MB
    """
    filesystem, path = open_filesystem(root, **options)
    files, size, lines = _describe(filesystem, path, levels)
    return "\n".join([f"{root}: {_amount(files, size)}", *lines])


def _describe(filesystem: fsspec.AbstractFileSystem, folder: str, levels: int) -> tuple[int, int, list[str]]:
    """Files and bytes in a folder, and the lines of the folders in it."""
    files = size = 0
    folders: list[tuple[str, int, int, list[str]]] = []
    for name, entry in sorted(_visible(filesystem, folder)):
        if entry["type"] == "directory":
            inner_files, inner_size, lines = _describe(filesystem, entry["name"], levels - 1)
            folders.append((name, inner_files, inner_size, lines))
        else:
            inner_files, inner_size = 1, int(entry["size"] or 0)
        files, size = files + inner_files, size + inner_size
    lines = []
    for number, (name, inner_files, inner_size, inner_lines) in enumerate(folders if levels > 0 else []):
        last = number == len(folders) - 1
        lines.append(f"{'└' if last else '├'}── {name}: {_amount(inner_files, inner_size)}")
        lines += [f"{' ' if last else '│'}   {line}" for line in inner_lines]
    return files, size, lines


def _visible(filesystem: fsspec.AbstractFileSystem, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in filesystem.ls(folder, detail=True):
        name = str(entry["name"]).rstrip("/").rpartition("/")[2]
        if not name.startswith("."):
            yield name, entry


def _amount(files: int, size: int) -> str:
    return f"{files:,} {'file' if files == 1 else 'files'}, {size / 1e6:,.1f} MB"
