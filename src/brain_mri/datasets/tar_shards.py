"""TAR archives in the convention of WebDataset: members `<key>.<kind>`, those of a key side by side, sorted.

The same members give the same bytes: times, owners and rights are fixed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
from kedro.io import DatasetError
from kedro_datasets._typing import TablePreview

from brain_mri.datasets.located import LocatedDataset, read_mark
from brain_mri.storage.files import COMPLETE, open_filesystem
from brain_mri.storage.object_stores import CHUNK
from brain_mri.storage.parquet import read_parquet

_PREVIEWED = 10


class TarWriter:
    """Writes members to a stream, a chunk at a time.

    Args:
        stream: Open for writing bytes.

    Example:
        >>> stream = io.BytesIO()
        >>> with TarWriter(stream) as archive:
        ...     archive.add("eyes/1", {"enhanced.png": b"…", "vessels.png": b"…"})
    """

    def __init__(self, stream: Any) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", bufsize=CHUNK, format=tarfile.PAX_FORMAT)  # noqa: SIM115
        # Copied in tarfile's own small pieces, a large member took longer than enhancing it.
        self._tar.copybufsize = CHUNK  # type: ignore[attr-defined]
        self._last = ""

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add the members of a key.

        Args:
            key: Greater than the one before; its last part holds no dot.
            members: By what follows the key and a dot in their names.

        Raises:
            ValueError: A key that readers would take for another one, or out of order.
        """
        if key <= self._last or "." in key.rpartition("/")[2]:
            raise ValueError(
                f"Key {key!r} after {self._last!r}: keys are sorted, and their names hold no dot."
            )
        self._last = key
        for kind in sorted(members):
            member = tarfile.TarInfo(f"{key}.{kind}")  # time 0, owner 0, no names, rights 644
            member.size = len(members[kind])
            self._tar.addfile(member, io.BytesIO(members[kind]))

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:  # else it is broken off: nobody shall take it for whole
            self._tar.close()


def read_samples(stream: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The members of each key, in the order of the archive.

    Args:
        stream: Open for reading bytes, from the start.

    Yields:
        Key, and contents by kind.
    """
    key, members = "", dict[str, bytes]()
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            first, _, kind = name.partition(".")
            if members and key != folder + slash + first:
                yield key, members
                members = {}
            key, content = folder + slash + first, tar.extractfile(member)
            members[kind] = content.read() if content else b""
    if members:
        yield key, members


@dataclass(frozen=True)
class TarShards:
    """A folder of complete shards, each an archive, a table beside it, and a stats record.

    Attributes:
        url: Of the folder.
        options: Of its filesystem.

    Example:
        >>> shards = catalog.load("enhanced_shards")  # doctest: +SKIP
        >>> for key, members in shards.samples(): ...  # doctest: +SKIP
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What the completion mark says: counts, the shards with their stats."""
        remedy = "`kedro run --pipelines=enhancement --params=enhancement.source=PATH`"
        return read_mark(self.url, self.options, "set of enhanced shards", remedy)

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The stats record of every shard."""
        return list(self.summary["shards"])

    def samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Key and contents by kind of every photograph that was enhanced, in the order of the keys."""
        filesystem, path = open_filesystem(self.url, **self.options)
        for shard in self.shards:
            with filesystem.open(f"{path}/{shard['name']}.tar", "rb") as stream:
                yield from read_samples(stream)

    def table(self, columns: list[str] | None = None) -> pd.DataFrame:
        """A row a photograph, those that were refused with their reasons among them."""
        filesystem, path = open_filesystem(self.url, **self.options)
        names = [f"{path}/{shard['name']}.parquet" for shard in self.shards]
        tables = [read_parquet(filesystem, name, columns) for name in names]
        return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()


class TarShardDataset(LocatedDataset[None, TarShards]):
    """Complete TAR shards in a folder, for reading.

    Example:
        ```yaml
        enhanced_shards:
          type: brain_mri.datasets.TarShardDataset
          filepath: ${globals:storage}/07_model_output/enhanced
        ```
    """

    def load(self) -> TarShards:
        """Return a handle to the shards."""
        filesystem, path = self._open()
        shards = TarShards(filesystem.unstrip_protocol(path), self._options)
        _ = shards.summary  # else whoever uses it would be told, and not who loads it
        return shards

    def save(self, data: None) -> None:
        """Refuse: shards are made by a pipeline."""
        raise DatasetError(f"{self._filepath} is read only here.")

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))

    def preview(self, nrows: int = _PREVIEWED) -> TablePreview:
        """The shards, for Kedro-Viz."""
        rows = pd.DataFrame(self.load().shards[:nrows]).drop(columns=["seconds"], errors="ignore")
        if "refused" in rows:
            rows["refused"] = [
                ", ".join(f"{count} {reason}" for reason, count in counts.items())
                for counts in rows["refused"]
            ]
        return TablePreview(json.loads(rows.to_json(orient="split")))
