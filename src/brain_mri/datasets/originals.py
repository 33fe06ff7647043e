"""The single files of the source, as they are, in the storage: for tools that read no packed scans."""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from brain_mri.datasets.located import LocatedDataset
from brain_mri.imaging.phantom import MARKER_NAME
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, replace_file, write_file
from brain_mri.storage.retry import retried
from brain_mri.storage.verification import file_sha256

logger = logging.getLogger(__name__)

TABLE_NAME = "scans.csv"
_FILES_PER_TASK = 256
_IN_FLIGHT = 16  # small files wait for the storage's answers, not for a core
_CHUNK = 2**20


@dataclass(frozen=True)
class Originals:
    """Which files to keep: a lazy value that `OriginalFilesDataset` carries out when it is saved.

    Attributes:
        launcher: Runs the tasks, a few hundred files each; None to keep nothing.
        files: Where each is kept (a relative path), and the URL to read it from.
        table: Content of a table that names the kept files, where the source is a table.
        adding: Whether what an earlier source left there stays. A file whose place is taken by another
            content is then kept as `<path>@<start of its sha256>`.
        progress: What the records of the tasks pass through.
    """

    launcher: Launcher | None = None
    files: tuple[tuple[str, str], ...] = ()
    table: bytes | None = None
    adding: bool = False
    progress: WithProgress = iter


def plan_originals(
    files: pd.DataFrame,
    source: Mapping[str, Any],
    launcher: Launcher,
    adding: bool = False,
    progress: WithProgress = iter,
) -> Originals:
    """Say where each file of a source is kept, so that what is kept is a source again, and the same.

    Args:
        files: Columns `path`, `url`, `label`, `official_split`, `patient`, `study`.
        source: Its `kind` and `url`; see `datasets.source.Source`.
        launcher: Runs the tasks.
        adding: Whether what an earlier source left there stays.
        progress: What the records of the tasks pass through.
    """
    kept = [safe_path(path) for path in files["path"]]
    rows = list(zip(kept, files["url"], strict=True))
    table = None
    if source["kind"] == "table":
        named = files.assign(path=kept).rename(columns={"official_split": "split"})
        table = named[["path", "label", "split", "patient", "study"]].to_csv(index=False).encode()
    if source["kind"] == "phantom":  # drawn scans keep their name wherever they lie
        rows.append((MARKER_NAME, f"{source['url'].rstrip('/')}/{MARKER_NAME}"))
    return Originals(launcher, tuple(rows), table, adding, progress)


def safe_path(path: str) -> str:
    """Where a file is kept: at its path, where that is relative, stays in its folder and is no name of ours.

    A table may name files anywhere (`/mnt/a/1.png`, `hdfs:///b/1.png`, `../1.png`). These are kept in
    `outside`, each in a folder that is named by the whole path, so that no two files meet.

    Example:
        >>> safe_path("glioma/1.png"), safe_path("../1.png")
        ('glioma/1.png', 'outside/02ba44a3b781/1.png')
    """
    ours = path in (TABLE_NAME, COMPLETE, MARKER_NAME) or path.startswith("outside/")
    elsewhere = path.startswith("/") or "://" in path or path.split("/", maxsplit=1)[0] in (".", "..")
    if not (ours or elsewhere) and path == posixpath.normpath(path):
        return path
    name = posixpath.basename(path.rstrip("/"))
    return f"outside/{hashlib.sha256(path.encode()).hexdigest()[:12]}/{name}"


class OriginalFilesDataset(LocatedDataset[Originals, dict[str, Any]]):
    """The single files of the source; loads as a summary: `kept` (bool), `files`, `bytes`.

    The folder is laid out like the source and can be named as `ingestion.source`; where the source was a
    table, name the table `scans.csv` in it.

    Example:
        ```yaml
        original_files:
          type: brain_mri.datasets.OriginalFilesDataset
          filepath: ${globals:storage}/02_intermediate/original_files
        ```
    """

    def load(self) -> dict[str, Any]:
        """What is kept; empty where ingestion has not run."""
        filesystem, path = self._open()
        try:
            return dict(json.loads(read_file(filesystem, f"{path}/{COMPLETE}")))
        except FileNotFoundError:
            return {}

    def save(self, data: Originals) -> None:
        """Store the files that are missing, in parallel, then the mark; remove what is in the source no more.

        Where nothing is to be kept, the mark says so, and what an earlier run has kept is left alone.
        """
        filesystem, path = self._open()
        mark = f"{path}/{COMPLETE}"
        if data.launcher is None:
            write_file(filesystem, mark, json.dumps({"kept": False, "files": 0, "bytes": 0}).encode())
            return
        if any(_lies_in(filesystem, path, url) for _, url in data.files):
            logger.warning("The source lies in %s, where it would be kept: it is left as it is.", path)
            write_file(filesystem, mark, json.dumps({"kept": True, "files": len(data.files)}).encode())
            return
        started = time.perf_counter()
        remove(filesystem, mark)
        url = filesystem.unstrip_protocol(path)
        keep = partial(keep_files, url=url, adding=data.adding, options=self._options)
        starts = range(0, len(data.files), _FILES_PER_TASK)
        tasks = [data.files[start : start + _FILES_PER_TASK] for start in starts]
        records = list(data.progress(data.launcher.map(keep, tasks)))
        kept = {name for record in records for name in record["kept"]}
        if data.adding:
            kept |= {stored[len(path) + 1 :] for stored in filesystem.find(path)}
        if data.table is not None:
            name = TABLE_NAME
            if name in kept and read_file(filesystem, f"{path}/{name}") != data.table:
                name = f"{name}@{hashlib.sha256(data.table).hexdigest()[:12]}.csv"
            write_file(filesystem, f"{path}/{name}", data.table)
            kept.add(name)
        size = sum(record["bytes"] for record in records)
        write_file(filesystem, mark, json.dumps({"kept": True, "files": len(kept), "bytes": size}).encode())
        for stored in filesystem.find(path):
            if stored[len(path) + 1 :] not in {*kept, COMPLETE}:
                remove(filesystem, stored)
        _report(records, time.perf_counter() - started)

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))


def _lies_in(filesystem: Any, folder: str, url: str) -> bool:
    other, path = open_filesystem(url)
    return type(other) is type(filesystem) and path.startswith(f"{folder}/")


def keep_files(
    rows: Sequence[tuple[str, str]], url: str, adding: bool = False, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Store some files, unless they are stored already; runs in a task, with several at once.

    Args:
        rows: Path to keep each at, relative, and URL to read it from.
        url: The folder to write to.
        adding: Whether a file that is there with another content stays there.
        options: Options of the folder's filesystem.

    Returns:
        A record: files (looked at), kept (paths that are now stored), bytes (of these), sent (how many were
        not there already).
    """
    filesystem, folder = open_filesystem(url, **(options or {}))

    def keep(row: tuple[str, str]) -> tuple[str, int, bool] | None:
        path, source = row
        try:
            if adding and filesystem.exists(f"{folder}/{path}"):
                digest = retried(partial(_sha256, source), path)
                if digest != file_sha256(filesystem, f"{folder}/{path}"):
                    path = f"{path}@{digest[:12]}"
            return (path, *retried(partial(_keep_file, filesystem, f"{folder}/{path}", source), path))
        except _UnreadableError:
            return None

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        kept = [outcome for outcome in pool.map(keep, rows) if outcome is not None]
    return {
        "files": len(rows),
        "kept": [path for path, _, _ in kept],
        "bytes": sum(size for _, size, _ in kept),
        "sent": sum(sent for _, _, sent in kept),
    }


class _UnreadableError(Exception):
    """A file of the source cannot be read; ingestion has put it into quarantine."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except StorageError:  # not the file: the storage that holds it
        raise
    except OSError as error:
        raise _UnreadableError from error


def _chunks(url: str) -> Iterator[bytes]:
    filesystem, path = open_filesystem(url)
    with _reading(), filesystem.open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _keep_file(filesystem: Any, target: str, url: str) -> tuple[int, bool]:
    """Bytes of a file, and whether it had to be sent."""
    source, path = open_filesystem(url)
    with _reading():
        size = int(source.size(path))
    if _is_stored(filesystem, target, size, url):
        return size, False
    size = 0
    with replace_file(filesystem, target) as stream:
        for chunk in _chunks(url):
            size += len(chunk)
            stream.write(chunk)
    return size, True


def _is_stored(filesystem: Any, target: str, size: int, url: str) -> bool:
    try:
        if filesystem.size(target) != size:
            return False
        stored = file_sha256(filesystem, target)
    except OSError:  # there is none, or what is there is damaged
        return False
    return _sha256(url) == stored


def _sha256(url: str) -> str:
    """sha256 of a file of the source, as hexadecimal digits."""
    found = hashlib.sha256()
    for chunk in _chunks(url):
        found.update(chunk)
    return found.hexdigest()


def _report(records: list[dict[str, Any]], seconds: float) -> None:
    """Say what was there, what was sent, and how fast."""
    kept, sent = sum(len(record["kept"]) for record in records), sum(record["sent"] for record in records)
    size = sum(record["bytes"] for record in records) / 1e6
    logger.info(
        "Original files: %d (%.1f MB). Already there: %d; sent: %d, all verified by sha256; unreadable: %d. "
        "%.1f s, %.0f files/s, %.1f MB/s.",
        kept,
        size,
        kept - sent,
        sent,
        sum(record["files"] for record in records) - kept,
        seconds,
        kept / seconds,
        size / seconds,
    )
