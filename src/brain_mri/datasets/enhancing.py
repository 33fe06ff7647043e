"""What the task of a TAR shard of enhanced photographs does.

It writes the archive, then the table beside it, each beside its place and renamed, and the stats record as
the last thing: with it the shard is complete. A task that finds the record of the same shard does nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from brain_mri.datasets.packing import read_source
from brain_mri.datasets.tar_shards import TarWriter
from brain_mri.imaging.decode import DecodeLimits, RefusedImage
from brain_mri.imaging.inspect import Inspection
from brain_mri.imaging.resize import use_one_thread
from brain_mri.imaging.retina import EnhanceOptions, enhance_photograph
from brain_mri.storage.files import (
    open_filesystem,
    read_file,
    remove,
    replace_file,
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


def read_record(filesystem: Any, folder: str, shard: Shard) -> dict[str, Any] | None:
    """The stats record of a shard of that name, whatever it is made of; empty where it is damaged."""
    try:
        return dict(json.loads(read_file(filesystem, _record_path(folder, shard.name))))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def is_complete(record: dict[str, Any] | None, filesystem: Any, folder: str, shard: Shard) -> bool:
    """Whether a shard is there as it would be made now, by its record."""
    if not record or record.get("fingerprint") != shard.fingerprint:
        return False
    try:
        whole = filesystem.size(f"{folder}/{shard.name}.tar") == record["tar_bytes"]
    except FileNotFoundError:
        return False
    return bool(whole and filesystem.exists(f"{folder}/{shard.name}.parquet"))


def _record_path(folder: str, name: str) -> str:
    return f"{folder}/{name}.json"


def _make(
    shard: Shard, filesystem: Any, folder: str, options: EnhanceOptions, limits: DecodeLimits
) -> dict[str, Any]:
    record = read_record(filesystem, folder, shard)
    if record and is_complete(record, filesystem, folder, shard):
        raise _Complete(record)
    if record is not None:
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
        faster = read_record(filesystem, folder, shard)
        if faster and is_complete(faster, filesystem, folder, shard):
            raise _Complete(faster)  # within the block, so that nothing is replaced
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
