"""The table of what a classifier says of any number of files, and the plan to make it."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
from kedro.io import DatasetError
from kedro_datasets._typing import TablePreview

from brain_mri.datasets.located import LocatedDataset, read_mark
from brain_mri.datasets.scoring import plan_pieces, score_piece
from brain_mri.datasets.versions import FolderVersion
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, write_file
from brain_mri.storage.parquet import read_parquet

logger = logging.getLogger(__name__)

_PREVIEWED = 20


@dataclass(frozen=True, eq=False)
class Scoring:
    """A plan to score files, and what runs it.

    It is a lazy value that `ScoresDataset` carries out when it is saved.

    Attributes:
        files: `path` (as it will stand in the table), `url`, `bytes`, `label` (a class key or None).
        version: The classifier.
        classes: Its class keys.
        launcher: Runs a task a piece.
        limits: What is refused.
        progress: What the stats records pass through as pieces end.
    """

    files: pd.DataFrame
    version: FolderVersion
    classes: tuple[str, ...]
    launcher: Launcher
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    progress: WithProgress = iter


@dataclass(frozen=True)
class Scores:
    """A small picklable handle to a complete table of scores.

    Attributes:
        url: The folder that holds the parts.
        options: Options of its filesystem.

    Example:
        >>> scores = catalog.load("scores")  # doctest: +SKIP
        >>> scores.to_pandas()["predicted_class"].value_counts()  # doctest: +SKIP
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What the completion mark says: classes, model version, files, counts, the parts."""
        remedy = "`kedro predict PATH` or `kedro run --pipelines=inference --params=inference.source=PATH`"
        return read_mark(self.url, self.options, "table of scores", remedy)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, a part at a time, in the order of the files."""
        filesystem, path = open_filesystem(self.url, **self.options)
        for part in self.summary["parts"]:
            yield read_parquet(filesystem, f"{path}/{part}")

    def to_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows, or some of their columns, as a pandas table."""
        tables = [table.select(columns) if columns else table for table in self.tables()]
        return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame(columns=columns)


class ScoresDataset(LocatedDataset[Scoring, Scores]):
    """The table of scores, a folder of parquet parts: saving a `Scoring` carries it out.

    Parts are made in a folder beside it, which takes its place when all are there: until then the old table
    is what readers see. A run that was broken off is gone on with by the next on the same files, whose
    finished parts are not scored again.

    Example:
        ```yaml
        scores:
          type: brain_mri.datasets.ScoresDataset
          filepath: ${globals:storage}/07_model_output/scores.parquet
        ```
    """

    def load(self) -> Scores:
        """Return a handle to the table."""
        filesystem, path = self._open()
        scores = Scores(filesystem.unstrip_protocol(path), self._options)
        _ = scores.summary  # else whoever uses it would be told, and not who loads it
        return scores

    def save(self, data: Scoring) -> None:
        """Score all files."""
        filesystem, path = self._open()
        started = time.perf_counter()
        if filesystem.exists(path) and not self._exists():
            raise DatasetError(
                f"{self._filepath} is there already and is no table of scores. Name another place: "
                "inference.output."
            )
        unfinished = f"{path}.unfinished"
        filesystem.makedirs(unfinished, exist_ok=True)
        pieces = {piece.name: piece for piece in plan_pieces(data.files, data.version, data.limits)}
        records = {name: record for name, record in _finished(filesystem, unfinished) if name in pieces}
        missing = [piece for name, piece in pieces.items() if name not in records]
        if records:
            logger.info(
                "Going on: %d of %d pieces were scored by a run that was broken off.",
                len(records),
                len(pieces),
            )
        task = partial(
            score_piece,
            version=data.version,
            url=filesystem.unstrip_protocol(unfinished),
            limits=data.limits,
            options=self._options,
        )
        fresh = 0
        for record in data.progress(data.launcher.map(task, missing)):
            records[record["name"]] = record
            fresh += record["files"]
        for name in _names(filesystem, unfinished):
            if name.removesuffix(".parquet") not in pieces:  # the records too: the mark holds their sums
                remove(filesystem, f"{unfinished}/{name}")
        summary = _summarise(data, [records[name] for name in pieces])
        write_file(filesystem, f"{unfinished}/{COMPLETE}", json.dumps(summary, indent=1).encode())
        remove(filesystem, path)
        filesystem.mv(unfinished, path, recursive=True)
        seconds = time.perf_counter() - started
        logger.info(
            "Scores: %d of %d files scored, %d of them abstained, %d unlike the training scans; "
            "%.1f s, %.0f files/s.",
            *(summary[name] for name in ("scored", "files", "abstained", "out_of_distribution")),
            seconds, fresh / seconds,
        )  # fmt: skip
        for reason, count in summary["refused"].items():
            logger.info("Refused as %s: %d files.", reason, count)

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))

    def preview(self, nrows: int = _PREVIEWED) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        table = next(self.load().tables(), None)
        rows = pd.DataFrame() if table is None else table.slice(0, nrows).to_pandas()
        return TablePreview(json.loads(rows.to_json(orient="split")))


def _summarise(data: Scoring, records: list[dict[str, Any]]) -> dict[str, Any]:
    refused: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    for record in records:
        refused.update(record["refused"])
        predicted.update(record["predicted"])
    return {
        "classes": list(data.classes),
        "model_version": data.version.version,
        **{
            name: sum(record[name] for record in records)
            for name in ("files", "scored", "abstained", "out_of_distribution")
        },
        "refused": dict(sorted(refused.items())),
        "predicted": dict(sorted(predicted.items())),
        "task_seconds": round(sum(record["seconds"] for record in records), 3),
        "parts": [f"{record['name']}.parquet" for record in records],
    }


def _finished(filesystem: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of parts that are there whole, by their names."""
    names = _names(filesystem, folder)
    for name in names:
        if not name.endswith(".json"):
            continue
        try:
            record = json.loads(read_file(filesystem, f"{folder}/{name}"))
            part = f"{record['name']}.parquet"
            if part in names and filesystem.size(f"{folder}/{part}") == record["stored_bytes"]:
                yield record["name"], record
        except (ValueError, LookupError, TypeError):
            logger.warning("The record %s/%s cannot be used; its files are scored again.", folder, name)


def _names(filesystem: Any, folder: str) -> list[str]:
    return [str(name).rstrip("/").rpartition("/")[2] for name in filesystem.ls(folder, detail=False)]
