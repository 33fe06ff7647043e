"""The files that every way of preprocessing gets: as many as asked for, no two with the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pandas as pd

_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"


def with_comment(content: bytes, text: str) -> bytes:
    """A JPEG with a comment right after its start: other bytes, the same pixels.

    Args:
        content: Of the JPEG.
        text: At most 65,533 bytes.

    Raises:
        ValueError: The content is no JPEG.
    """
    if not content.startswith(_START):
        raise ValueError("Only a JPEG can be given a comment.")
    data = text.encode()
    return _START + _COMMENT + (len(data) + 2).to_bytes(2, "big") + data + content[len(_START) :]


def write_images(scans: pd.DataFrame, folder: Path, images: int) -> pd.DataFrame:
    """Fill a folder with files: the scans, then again and again those that are JPEGs, with comments.

    Args:
        scans: As `benchmarks.storage.choose_scans` returns them: different, and such that can be decoded.
        folder: Gets a folder a class.
        images: How many files; fewer are written if there is no JPEG to repeat.

    Returns:
        Columns `path`, `url` and `bytes`, as `plan_blocks` takes them.
    """
    rows: list[tuple[str, str, int]] = []
    for (path, url), copy in _repeated(scans):
        if len(rows) == images:
            break
        # The class folder alone: that of a test half would make two levels of some.
        target = folder / Path(path).parent.name / f"{copy}-{len(rows)}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            target.write_bytes(with_comment(Path(url).read_bytes(), f"copy {copy}"))
        else:
            shutil.copyfile(url, target)
        rows.append((target.relative_to(folder).as_posix(), str(target), target.stat().st_size))
    return pd.DataFrame(rows, columns=["path", "url", "bytes"])


def _repeated(scans: pd.DataFrame) -> Iterator[tuple[tuple[str, str], int]]:
    """Path and URL of every scan, with the number of the copy; 0 is the scan itself."""
    files = list(zip(scans["path"], scans["url"], strict=True))
    yield from ((file, 0) for file in files)
    jpegs = [file for file in files if Path(file[1]).read_bytes().startswith(_START)]
    if jpegs:
        yield from ((file, copy) for copy in count(1) for file in jpegs)
