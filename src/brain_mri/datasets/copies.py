"""Exact copies of a scan that lie in several blocks: all but one are left out."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from brain_mri.datasets.blocks import Block
from brain_mri.datasets.packing import INSPECTIONS, SCANS_SCHEMA
from brain_mri.storage.files import read_file, write_file
from brain_mri.storage.parquet import read_parquet, write_parquet
from brain_mri.storage.retry import retried


def drop_copies_between_blocks(filesystem: Any, folder: str, records: list[dict[str, Any]]) -> None:
    """Keep each scan in the first block that holds it, and leave it out of a new form of the later ones.

    The plan brings exact copies into one block, except where very many files have the same size. The block as
    it was stays, under its own name, for those who read a set that has it.

    Args:
        filesystem: Where the blocks are.
        folder: Likewise.
        records: Of all blocks; changed where a block is.
    """
    seen: set[str] = set()
    for record in records:
        path = f"{folder}/{record['name']}"
        scan_ids = read_parquet(filesystem, path, ["scan_id"])["scan_id"].to_pylist()
        copies = sorted(seen.intersection(scan_ids))
        if copies:
            drop = partial(_drop, filesystem, folder, record, copies)
            record.update(retried(drop, f"taking copies out of {record['name']}"))
        seen.update(scan_ids)


def _drop(filesystem: Any, folder: str, record: dict[str, Any], copies: list[str]) -> dict[str, Any]:
    """Write a block without some scans, and its inspections, under another name; what changes in its record.

    It gets no stats record: no task looks for a block of this name.
    """
    key = hashlib.sha256(json.dumps([record["key"], copies]).encode()).hexdigest()
    name = Block(int(record["name"].split("-")[1]), ()).name(key)
    table = read_parquet(filesystem, f"{folder}/{record['name']}")
    kept = table.filter(pc.invert(pc.is_in(table["scan_id"], pa.array(copies, pa.string()))))
    with write_parquet(filesystem, f"{folder}/{name}", SCANS_SCHEMA, "none") as part:
        for batch in kept.to_batches(max_chunksize=64):
            part.add(batch)
    inspections = read_file(filesystem, f"{folder}/{INSPECTIONS}/{record['name']}")
    write_file(filesystem, f"{folder}/{INSPECTIONS}/{name}", inspections)
    return {
        "name": name,
        "key": key,
        "rows": len(kept),
        "row_groups": part.row_groups,
        "dropped": len(copies),
        "sha256": part.sha256,
        "stored_bytes": part.bytes,
        "sent": record["sent"] + part.bytes + len(inspections),
    }
