"""Enhancing photographs into TAR shards: the plan, what the task of a shard does, and how it is carried out.

A plan says which photographs a shard holds; who makes it when only changes how long it takes. A task writes
the archive, then the table beside it, each beside its place and renamed, and the stats record as the last
thing: with it the shard is complete. A task that finds the record of the same shard does nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from brain_mri.datasets.packing import read_source
from brain_mri.datasets.tar_shards import TarShardDataset, TarWriter
from brain_mri.imaging.decode import DecodeLimits, RefusedImage
from brain_mri.imaging.inspect import Inspection
from brain_mri.imaging.resize import use_one_thread
from brain_mri.imaging.retina import EnhanceOptions, enhance_photograph, steps_version
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.files import (
    COMPLETE,
    open_filesystem,
    place_of,
    read_file,
    remove,
    replace_file,
    sweep,
    write_file,
)
from brain_mri.storage.parquet import write_parquet
from brain_mri.storage.retry import retried

logger = logging.getLogger(__name__)

ENHANCED, REFUSED = "enhanced", "refused"
STAGES = ("read", "decode", "enhance", "encode", "write")

ROWS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("vessel_share", pa.float64()),
        ("enhanced_bytes", pa.int64()),
        ("enhanced_sha256", pa.string()),
        ("vessels_bytes", pa.int64()),
        ("vessels_sha256", pa.string()),
        *((f"{stage}_seconds", pa.float64()) for stage in STAGES),
    ]
)
"""A row a photograph, in a table beside the archive; the parameters stand in the metadata of its schema."""


class Shard(NamedTuple):
    """What a task makes.

    Attributes:
        name: Of the files, without what follows the dot.
        files: Key, path and URL of each photograph, in the order of the keys.
        fingerprint: Of everything that decides about its content, but the content of the files.
    """

    name: str
    files: tuple[tuple[str, str, str], ...]
    fingerprint: str


@dataclass(frozen=True)
class Enhancing:
    """A plan to enhance photographs, and what runs it; `EnhancedShardsDataset` carries it out.

    Attributes:
        plan: `shard`, `key`, `path`, `url`, `bytes` of each photograph, in the order of the keys.
        source: Where they lie.
        options: How they are enhanced.
        limits: What is refused.
        launcher: Runs a task a shard.
        drawn: Whether the photographs were drawn for lack of others, and so shards of them may be replaced.
        progress: What the stats records pass through as shards end.
    """

    plan: pd.DataFrame
    source: str
    options: EnhanceOptions
    limits: DecodeLimits
    launcher: Launcher
    drawn: bool = False
    progress: WithProgress = field(default=iter)

    def shards(self) -> list[Shard]:
        """The shards of the plan."""
        decided = [steps_version(), asdict(self.options), asdict(self.limits)]
        made = []
        for number, rows in self.plan.groupby("shard", sort=True):
            files = tuple(zip(rows["key"], rows["path"], rows["url"], strict=True))
            # Not where they lie: another machine may reach the same photographs in another place.
            named = [rows[name].tolist() for name in ("key", "path", "bytes")]
            ingredients = json.dumps([named, decided])
            key = hashlib.sha256(ingredients.encode("utf-8", "surrogateescape")).hexdigest()
            made.append(Shard(f"shard-{number:05d}", files, key))
        return made


def enhance_shard(
    shard: Shard,
    url: str,
    options: EnhanceOptions,
    limits: DecodeLimits,
    storage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make one shard, unless it is complete; runs in a task.

    Its memory is that of one photograph, of a chunk, and of the rows of the table.

    Args:
        shard: What to make.
        url: The folder to write to.
        options: How photographs are enhanced.
        limits: What is refused.
        storage: Options of the folder's filesystem.

    Returns:
        The stats record: name, fingerprint, files, enhanced, refused (by reason), megapixels, bytes (read),
        tar_bytes, tar_sha256, seconds (by stage), started, ended (Unix time), worker; `fresh` says whether it
        was made now.
    """
    use_one_thread()
    filesystem, folder = open_filesystem(url, **(storage or {}))
    made = partial(_make, shard, filesystem, folder, options, limits)
    try:
        return retried(made, shard.name) | {"fresh": True}
    except _Complete as complete:
        return complete.record | {"fresh": False}


class _Complete(Exception):  # noqa: N818 - no error: nothing is left to be done
    """The shard is there, perhaps since a moment: another attempt at it was faster."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__()
        self.record = record


def _stop_if_complete(filesystem: Any, folder: str, shard: Shard) -> bool:
    """Whether there is a record of a shard of that name that is not complete, or has another content.

    Raises:
        _Complete: The shard is there as it would be made now.
    """
    try:
        content = read_file(filesystem, _record_path(folder, shard.name))
    except FileNotFoundError:
        return False
    try:
        record = json.loads(content)
        complete = (
            record["fingerprint"] == shard.fingerprint
            and filesystem.size(f"{folder}/{shard.name}.tar") == record["tar_bytes"]
            and filesystem.exists(f"{folder}/{shard.name}.parquet")
        )
    except (FileNotFoundError, ValueError, KeyError):
        return True
    if complete:
        raise _Complete(dict(record))
    return True


def _record_path(folder: str, name: str) -> str:
    return f"{folder}/{name}.json"


def _make(
    shard: Shard, filesystem: Any, folder: str, options: EnhanceOptions, limits: DecodeLimits
) -> dict[str, Any]:
    if _stop_if_complete(filesystem, folder, shard):
        remove(filesystem, _record_path(folder, shard.name))  # of what now goes
    started = time.time()
    seconds = dict.fromkeys(STAGES, 0.0)
    refused: Counter[str] = Counter()
    total = pixels = 0
    rows = []
    with replace_file(filesystem, f"{folder}/{shard.name}.tar") as stream:
        with TarWriter(stream) as archive:
            for key, path, url in shard.files:
                row, members = _enhance_one(url, options, limits)
                began = time.perf_counter()
                if members:
                    archive.add(key, members)
                row["write_seconds"] = time.perf_counter() - began
                rows.append({"key": key, "path": path, **row})
                total += row["bytes"]
                pixels += (row["width"] or 0) * (row["height"] or 0)
                for stage in STAGES:
                    seconds[stage] += row[f"{stage}_seconds"] or 0
                if row["status"] == REFUSED:
                    refused[row["reason"]] += 1
        _stop_if_complete(filesystem, folder, shard)  # a slow attempt replaces nothing
        began = time.perf_counter()
    parameters = json.dumps({**asdict(options), "limits": asdict(limits)})
    schema = ROWS_SCHEMA.with_metadata({"parameters": parameters, "fingerprint": shard.fingerprint})
    with write_parquet(filesystem, f"{folder}/{shard.name}.parquet", schema, "zstd") as table:
        table.add(pa.RecordBatch.from_pylist(rows, schema))
    seconds["write"] += time.perf_counter() - began  # the last chunks, and reading back what was written
    record = {
        "name": shard.name,
        "fingerprint": shard.fingerprint,
        "files": len(rows),
        "enhanced": len(rows) - sum(refused.values()),
        "refused": dict(sorted(refused.items())),
        "megapixels": pixels / 1e6,
        "bytes": total,
        "tar_bytes": stream.size,
        "tar_sha256": stream.sha256.hexdigest(),
        "seconds": {stage: round(seconds[stage], 4) for stage in STAGES},
        "started": started,
        "ended": time.time(),
        "worker": f"{socket.gethostname()}:{os.getpid()}",
    }
    write_file(filesystem, _record_path(folder, shard.name), json.dumps(record).encode())
    return record


def _enhance_one(
    url: str, options: EnhanceOptions, limits: DecodeLimits
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The row of a photograph, and its members; none where it is refused."""
    row: dict[str, Any] = dict.fromkeys(ROWS_SCHEMA.names[4:])
    began = time.perf_counter()
    content = retried(partial(read_source, url, limits), url)  # not the whole shard again for one file
    row["read_seconds"] = time.perf_counter() - began
    if isinstance(content, Inspection):
        return row | {"status": REFUSED, "reason": content.reason, "bytes": content.bytes}, {}
    row |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        made = enhance_photograph(content, options, limits)
    except RefusedImage as error:
        return row | {"status": REFUSED, "reason": error.reason}, {}
    members = {"enhanced.png": made.enhanced, "vessels.png": made.vessels}
    row |= {"status": ENHANCED, "reason": "", "width": made.width, "height": made.height}
    row |= {f"{stage}_seconds": value for stage, value in made.seconds.items()}
    row["vessel_share"] = made.vessel_share
    for kind, member in members.items():
        name = kind.partition(".")[0]
        row |= {f"{name}_bytes": len(member), f"{name}_sha256": hashlib.sha256(member).hexdigest()}
    return row, members


class OtherSourceError(ValueError):
    """The folder holds shards of photographs that lie elsewhere."""


class EnhancedShardsDataset(TarShardDataset):
    """Enhanced photographs in TAR shards: saving an `Enhancing` carries it out.

    Shards that are complete stay; those that a run had not finished, or that would be made of other files or
    by other parameters now, are made. When all are there, a mark says so.

    Example:
        ```yaml
        enhanced_shards:
          type: brain_mri.datasets.EnhancedShardsDataset
          filepath: ${globals:storage}/07_model_output/enhanced
        ```
    """

    def save(self, data: Enhancing) -> None:  # type: ignore[override]  # the reader alone takes nothing
        """Make what is missing."""
        filesystem, path = self._open()
        started = time.perf_counter()
        filesystem.makedirs(path, exist_ok=True)
        shards = data.shards()
        self._claim(filesystem, path, data, shards)
        remove(filesystem, f"{path}/{COMPLETE}")
        names = {shard.name for shard in shards}
        for stored in sorted(str(name).rpartition("/")[2] for name in filesystem.ls(path, detail=False)):
            name, _, kind = stored.partition(".")
            if name.startswith("shard-") and name not in names and kind in {"tar", "parquet", "json"}:
                remove(filesystem, f"{path}/{stored}")  # of a longer plan
        task = partial(
            enhance_shard, url=filesystem.unstrip_protocol(path), options=data.options, limits=data.limits,
            storage=self._options,
        )  # fmt: skip
        records = {record["name"]: record for record in data.progress(data.launcher.map(task, shards))}
        ordered = [records[shard.name] for shard in shards]
        summary = summarise(ordered) | {"source": data.source}
        content = json.dumps({**summary, "shards": [_without_fresh(record) for record in ordered]}, indent=1)
        write_file(filesystem, f"{path}/{COMPLETE}", content.encode())
        sweep(filesystem.unstrip_protocol(path), levels=1, **self._options)  # now no task needs them
        _tell(ordered, summary, time.perf_counter() - started)

    def _claim(self, filesystem: Any, path: str, data: Enhancing, shards: list[Shard]) -> None:
        """Note whose shards these are.

        Raises:
            OtherSourceError: They are of another source, and not one of them is of this plan.
        """
        note, claim = f"{path}/_source.json", {"source": data.source, "drawn": data.drawn}
        if filesystem.exists(note):
            earlier = json.loads(read_file(filesystem, note))
            if earlier == claim:
                return
            same = earlier.get("drawn") or place_of(earlier["source"]) == place_of(data.source)
            # The same photographs may be reached in another place from here.
            if not same and not any(_is_complete(filesystem, path, shard) for shard in shards):
                raise OtherSourceError(
                    f"{self._filepath} holds shards of {earlier['source']}, and this run enhances "
                    f"{data.source}. Name another folder (enhancement.output), or remove that one."
                )
        write_file(filesystem, note, json.dumps(claim).encode())


def _is_complete(filesystem: Any, folder: str, shard: Shard) -> bool:
    try:
        _stop_if_complete(filesystem, folder, shard)
    except _Complete:
        return True
    return False


def _without_fresh(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "fresh"}


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and sums over stats records."""
    refused: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for record in records:
        refused.update(record["refused"])
        seconds.update(record["seconds"])
    sums = {
        name: sum(record[name] for record in records)
        for name in ("files", "enhanced", "megapixels", "bytes", "tar_bytes")
    }
    return {**sums, "refused": dict(sorted(refused.items())), "seconds": dict(seconds)}


def _tell(records: list[dict[str, Any]], summary: dict[str, Any], seconds: float) -> None:
    fresh = [record for record in records if record["fresh"]]
    if len(fresh) < len(records):
        logger.info("%d of %d shards were complete already.", len(records) - len(fresh), len(records))
    images = sum(record["files"] for record in fresh)
    megapixels = sum(record["megapixels"] for record in fresh)
    logger.info(
        "Enhanced: %s of %s photographs in %d shards (%.1f MB); %.1f s, %.1f images/s, %.1f megapixels/s.",
        f"{summary['enhanced']:,}", f"{summary['files']:,}", len(records), summary["tar_bytes"] / 1e6,
        seconds, images / seconds, megapixels / seconds,
    )  # fmt: skip
    if fresh:
        spent = summarise(fresh)["seconds"]
        logger.info("Of the cores' time: %s.", ", ".join(f"{each} {spent[each]:.1f} s" for each in STAGES))
    for reason, count in summary["refused"].items():
        logger.info("Refused as %s: %d photographs.", reason, count)
