"""The raw source: where a user's scans are, and which files lie there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import pandas as pd
from fsspec.implementations.local import LocalFileSystem
from kedro.io import AbstractDataset, DatasetError

from brain_mri.imaging.phantom import MARKER_NAME, write_phantom_folder
from brain_mri.spark.java import cache_folder
from brain_mri.storage.files import local_url, open_filesystem
from brain_mri.storage.parquet import read_parquet

TABLE_SUFFIXES = (".csv", ".parquet")
# Only used to tell a scan in the wrong place from a document; what is read is decided by content.
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm")
ENVIRONMENT_VARIABLE = "BRAIN_MRI_DATA"
PHANTOM_FOLDER = "phantom"


class SourceError(DatasetError):
    """The source that was asked for is not there or cannot be read."""


@dataclass(frozen=True)
class Source:
    """What ingestion reads, and why it is this.

    Attributes:
        kind: A folder of images, a table that names them, or drawn phantoms.
        url: Local path or fsspec URL.
        why: How it was chosen, for the log.
        drawn: Whether it is the phantom folder that a run draws itself; it may not be there yet.
    """

    kind: Literal["folder", "table", "phantom"]
    url: str
    why: str
    drawn: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether Spark executors on other machines can read it."""
        return not isinstance(open_filesystem(self.url)[0], LocalFileSystem)


@dataclass(frozen=True)
class RawFolder:
    """A handle to `data/01_raw`, where users put their scans, and to the place where phantoms are drawn.

    Attributes:
        path: The folder.
        environment: What `BRAIN_MRI_DATA` names, if it is set.
        phantoms: Where phantoms are drawn; by default in this folder.
    """

    path: str
    environment: str | None = None
    phantoms: str | None = None

    def choose(self, asked: str | None) -> Source:
        """Decide what to read.

        That is what was asked for, else `BRAIN_MRI_DATA`, else the user's data here, else phantoms.

        Raises:
            SourceError: What was named is not there, or what lies in data/01_raw is not in order.
        """
        for named, why in (
            (asked, "it is given as ingestion.source"),
            (self.environment, f"{ENVIRONMENT_VARIABLE} names it"),
        ):
            if named:
                return _existing(named, why)
        own = self._user_data()
        if own is not None:
            return _existing(*own)
        phantom = str(self._phantom_folder())
        why = f"no ingestion.source, no {ENVIRONMENT_VARIABLE} and nothing in data/01_raw"
        return Source("phantom", phantom, why, drawn=True)

    def draw_phantoms(self, images: int, seed: int) -> None:
        """Draw the phantom folder, unless it is there as asked for."""
        write_phantom_folder(self._phantom_folder(), images=images, seed=seed)

    def _phantom_folder(self) -> Path:
        return Path(self.phantoms or self.path) / PHANTOM_FOLDER

    def _user_data(self) -> tuple[str, str] | None:
        """The user's folder or table below this one, and why it is this.

        It is this folder itself where class folders lie directly in it. Hidden files (`.gitkeep`) are
        nobody's data.
        """
        root = Path(self.path)
        if not root.is_dir():
            return None
        entries = sorted(
            entry
            for entry in root.iterdir()
            if not entry.name.startswith(".") and entry.name != PHANTOM_FOLDER
        )
        folders = [entry for entry in entries if entry.is_dir() and _has_files(entry)]
        files = [entry.name for entry in entries if entry.is_file()]
        images = [name for name in files if name.lower().endswith(_IMAGE_SUFFIXES)]
        tables = [name for name in files if name.lower().endswith(TABLE_SUFFIXES)]
        if images:
            raise SourceError(
                f"Images lie directly in {root} ({len(images)}, such as {images[0]!r}). Put them into class "
                f"folders, for instance {root}/my-scans/glioma and {root}/my-scans/notumor."
            )
        why = "it lies in data/01_raw"
        if folders:
            if tables:
                why += f"; {', '.join(tables)} beside it is used only if it is named in ingestion.source"
            return str(folders[0] if len(folders) == 1 else root), why
        if len(tables) > 1:
            raise SourceError(
                f"{root} holds several tables: {', '.join(tables)}. Name one of them in ingestion.source."
            )
        return (str(root / tables[0]), why) if tables else None


class RawFolderDataset(AbstractDataset[None, RawFolder]):
    """`data/01_raw` as a handle.

    Args:
        filepath: The folder.
        storage: Where results go. Where that is not on this disk, `data/` stays untouched, and phantoms are
            drawn in the user's cache folder.
        metadata: Ignored here; Kedro-Viz reads its layer from it.

    Example:
        ```yaml
        raw:
          type: brain_mri.datasets.RawFolderDataset
          filepath: data/01_raw
          storage: ${globals:storage}
        ```
    """

    def __init__(self, *, filepath: str, storage: str = "", metadata: dict[str, Any] | None = None) -> None:
        self._filepath = filepath
        self._storage = storage
        self.metadata = metadata

    def load(self) -> RawFolder:
        """Return the handle."""
        phantoms = str(cache_folder()) if "://" in self._storage else None
        return RawFolder(self._filepath, os.environ.get(ENVIRONMENT_VARIABLE) or None, phantoms)

    def save(self, data: None) -> None:
        """Refuse: raw data is the user's."""
        raise DatasetError("data/01_raw is the user's: the project only reads it.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


def list_files(source: Source, pass_over_phantoms: bool = True) -> pd.DataFrame:
    """List the files of a folder or phantom source.

    Links are followed, a folder that was seen before is not entered again (loops of links end). Names that
    are no UTF-8 are listed with escapes in `path`, and can be read through `url` all the same.

    Args:
        source: A folder.
        pass_over_phantoms: Whether phantoms that lie below a folder of scans are left out: drawn scans never
            mix with a user's.

    Returns:
        Columns `path` (relative to the source, `/` between folders), `url`, `bytes`; sorted by path.

    Raises:
        SourceError: A folder cannot be listed; without that its scans would be missing in silence.
    """
    filesystem, root = open_filesystem(source.url)
    if isinstance(filesystem, LocalFileSystem):
        rows = list(_walk_local(root, pass_over_phantoms))
    else:
        rows = list(_walk(filesystem, root, pass_over_phantoms))
    files = pd.DataFrame(rows, columns=["path", "url", "bytes"])
    return files.astype({"bytes": "int64"}).sort_values("path", ignore_index=True)


def read_table(source: Source) -> tuple[pd.DataFrame, str]:
    """Read a table source.

    Returns:
        The table as it is, and the URL that relative paths in it start from (the table's folder).
    """
    filesystem, path = open_filesystem(source.url)
    if path.lower().endswith(".csv"):
        with filesystem.open(path, "rb") as stream:
            table = pd.read_csv(stream, dtype=str)
    else:
        table = read_parquet(filesystem, path).to_pandas()
    return table, filesystem.unstrip_protocol(path.rpartition("/")[0])


def locate_files(paths: list[str], base: str) -> pd.DataFrame:
    """URL and size of files that a table names.

    The size is 0 where there is no such file (inspection then says so).
    """
    rows = []
    for path in paths:
        absolute = "://" in path or path.startswith("/")
        url = path if absolute else f"{base.rstrip('/')}/{path}"
        filesystem, name = open_filesystem(url)
        try:
            size = int(filesystem.size(name) or 0)
        except OSError:
            size = 0
        rows.append((path, url, size))
    return pd.DataFrame(rows, columns=["path", "url", "bytes"])


def _existing(named: str, why: str) -> Source:
    # Absolute, because what is recorded is read later, perhaps by a command typed elsewhere.
    url = named if "://" in named else str(Path(named).expanduser().absolute())
    filesystem, path = open_filesystem(url)
    if not filesystem.exists(path):
        near = _nearest_existing(filesystem, path)
        raise SourceError(
            f"There is nothing at {named!r} ({why}). Expected a folder of images in class folders, or a "
            f"table ({' or '.join(TABLE_SUFFIXES)}). The nearest folder that exists is {near!r}."
        )
    if filesystem.isdir(path):
        # Drawn scans keep their name wherever they lie and however they are named.
        return Source("phantom" if filesystem.exists(f"{path}/{MARKER_NAME}") else "folder", url, why)
    if path.lower().endswith(TABLE_SUFFIXES):
        return Source("table", url, why)
    raise SourceError(
        f"{named!r} ({why}) is a file, but no table ({' or '.join(TABLE_SUFFIXES)}). Name its folder."
    )


def _nearest_existing(filesystem: Any, path: str) -> str:
    while "/" in path.strip("/"):
        path = path.rpartition("/")[0]
        if filesystem.isdir(path):
            return path
    return "/"


def _has_files(folder: Path) -> bool:
    """Whether there is a file in a folder, at any depth, that is not hidden."""
    return any(
        not any(part.startswith(".") for part in path.split("/"))
        for path, _, _ in _walk_local(str(folder), True)
    )


def _walk_local(root: str, pass_over_phantoms: bool) -> Iterator[tuple[str, str, int]]:
    entered: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_stop):
        folders.sort()  # a folder and a link to it: on every machine the same one is entered first
        status = Path(folder).stat()
        phantoms = (
            pass_over_phantoms and folder != root and any(name.startswith(MARKER_NAME) for name in names)
        )
        if phantoms or (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in sorted(names):
            path = Path(folder, name)
            try:
                size = path.stat().st_size
            except OSError:  # a dangling link is listed, and refused when it is read
                size = 0
            yield readable(path.relative_to(root).as_posix()), local_url(str(path)), size


def _stop(error: OSError) -> NoReturn:
    raise SourceError(
        f"The folder {readable(str(error.filename))} cannot be listed: {error.strerror}. Give yourself the "
        "right to read it (chmod -R u+rX), or move it out of the source."
    ) from error


def readable(name: str) -> str:
    r"""A name as text; bytes of it that are no UTF-8 become `\xff`, as Python writes them."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(filesystem: Any, root: str, pass_over_phantoms: bool) -> Iterator[tuple[str, str, int]]:
    entries = filesystem.find(root, detail=True)
    markers = [path.rpartition("/")[0] for path in entries if path.rpartition("/")[2].startswith(MARKER_NAME)]
    if not pass_over_phantoms:
        markers = []
    phantoms = tuple(f"{folder}/" for folder in markers if folder.rstrip("/") != root.rstrip("/"))
    for path, entry in entries.items():
        if phantoms and path.startswith(phantoms):
            continue
        relative = path[len(root) :].lstrip("/")
        if not relative or relative.endswith("/"):  # what consoles of object stores make for a folder
            continue
        yield relative, filesystem.unstrip_protocol(path), int(entry.get("size") or 0)


@dataclass(frozen=True)
class Survey:
    """What a source holds right now, by names and sizes: known before any file is read.

    Attributes:
        source: What was looked at.
        files: Number of files; 0 for phantoms that the run draws itself.
        bytes: Of all files together; 0 where they are not known yet.
        identity: Equal for the same names and sizes; it tells whether results are about these files.
    """

    source: Source
    files: int
    bytes: int
    identity: str


def survey_source(raw: RawFolder, asked: str | None) -> Survey:
    """List the source once, before a run.

    Raises:
        SourceError: What was asked for is not there or cannot be listed.
    """
    source = raw.choose(asked)
    if source.drawn:
        return Survey(source, 0, 0, "phantoms drawn by the run")  # its parameters say the rest
    if source.kind == "table":
        table, _ = read_table(source)
        files, size = len(table), 0
    else:
        table = list_files(source)[["path", "bytes"]]
        files, size = len(table), int(table["bytes"].sum())
    digest = hashlib.sha256(table.to_csv(index=False).encode("utf-8", "surrogateescape")).hexdigest()
    return Survey(source, files, size, f"{source.kind} {digest}")
