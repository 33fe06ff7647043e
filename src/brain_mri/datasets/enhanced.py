"""Enhanced photographs in TAR shards: the plan, and the catalog entry that carries it out.

A plan says which photographs a shard holds; who makes it when only changes how long it takes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from brain_mri.datasets.enhancing import STAGES, Shard, enhance_shard, is_complete, read_record
from brain_mri.datasets.tar_shards import TarShardDataset
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.retina import EnhanceOptions, steps_version
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.files import COMPLETE, place_of, read_file, remove, sweep, write_file

logger = logging.getLogger(__name__)


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
            if not same and not any(
                is_complete(read_record(filesystem, path, shard), filesystem, path, shard) for shard in shards
            ):
                raise OtherSourceError(
                    f"{self._filepath} holds shards of {earlier['source']}, and this run enhances "
                    f"{data.source}. Name another folder (enhancement.output), or remove that one."
                )
        write_file(filesystem, note, json.dumps(claim).encode())


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
