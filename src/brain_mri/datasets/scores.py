"""What a classifier says of any number of files: tasks that score a piece of them each, and their table.

A task reads its files, prepares them as the network's training scans were, asks the engine and writes a part
of the table. So neither files nor answers pass through the driver, whose memory is that of the list of files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import DatasetError
from kedro_datasets._typing import TablePreview
from numpy.typing import NDArray

from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.packing import read_source
from brain_mri.datasets.versions import FolderVersion
from brain_mri.imaging.decode import DecodeLimits, RefusedImage
from brain_mri.imaging.inspect import Inspection
from brain_mri.imaging.resize import use_one_thread
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.spark.launchers import Launcher, WithProgress
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, remove, write_file
from brain_mri.storage.parquet import write_parquet
from brain_mri.storage.retry import retried

logger = logging.getLogger(__name__)

PIECE_FILES, PIECE_BYTES = 512, 64 * 2**20
"""Files that a task scores, at most, and their bytes: some seconds' work, in memory for a batch at a time."""

SCORED, REFUSED = "scored", "refused"
_BATCH = 32
_PREVIEWED = 20
_opened: dict[str, ScanClassifier] = {}  # the version that this process used last, by its place


def scores_schema(classes: tuple[str, ...]) -> pa.Schema:
    """The table of scores: `path` and what was found out about it; the rest is null where it was refused."""
    return pa.schema(
        [
            ("path", pa.string()),
            ("scan_id", pa.string()),
            ("label", pa.string()),
            ("predicted_class", pa.string()),
            ("confidence", pa.float64()),
            *((f"probability_{name}", pa.float64()) for name in classes),
            *((f"uncalibrated_{name}", pa.float64()) for name in classes),
            ("abstained", pa.bool_()),
            ("out_of_distribution", pa.bool_()),
            ("distance", pa.float64()),
            ("model_version", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
        ]
    )


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
class ScorePiece:
    """Files that one task scores: name of the part, then path, URL and label of each."""

    name: str
    files: tuple[tuple[str, str, str | None], ...]


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
        filesystem, path = open_filesystem(self.url, **self.options)
        try:
            return dict(json.loads(read_file(filesystem, f"{path}/{COMPLETE}")))
        except FileNotFoundError as error:
            raise DatasetError(
                f"{self.url} holds no complete table of scores. Run `kedro predict PATH` or `kedro run "
                "--pipelines=inference --params=inference.source=PATH` first."
            ) from error

    def tables(self) -> Iterator[pa.Table]:
        """The rows, a part at a time, in the order of the files."""
        filesystem, path = open_filesystem(self.url, **self.options)
        for part in self.summary["parts"]:
            with filesystem.open(f"{path}/{part}", "rb") as stream:
                yield pq.read_table(pa.BufferReader(stream.read()))

    def to_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows, or some of their columns, as a pandas table."""
        tables = [table.select(columns) if columns else table for table in self.tables()]
        return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame(columns=columns)


def score_piece(
    piece: ScorePiece, version: FolderVersion, url: str, limits: DecodeLimits, options: dict[str, Any]
) -> dict[str, Any]:
    """Score the files of a piece and write their part of the table; runs in a task.

    Returns:
        The stats record, which is also written beside the part, as the last thing: name, files, scored,
        refused (files by reason), predicted (scans by class), abstained, out_of_distribution, seconds.
    """
    use_one_thread()
    return retried(partial(_score, piece, version, url, limits, options), f"scoring {piece.name}")


def _score(
    piece: ScorePiece, version: FolderVersion, url: str, limits: DecodeLimits, options: dict[str, Any]
) -> dict[str, Any]:
    started = time.perf_counter()
    if version.url not in _opened:
        _opened.clear()
        _opened[version.url] = ScanClassifier(version.read, threads=1)
    classifier = _opened[version.url]
    schema = scores_schema(classifier.classes)
    filesystem, folder = open_filesystem(url, **options)
    refused: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    abstained = strange = 0
    with write_parquet(filesystem, f"{folder}/{piece.name}.parquet", schema, "zstd") as part:
        for start in range(0, len(piece.files), _BATCH):
            rows = _score_batch(piece.files[start : start + _BATCH], classifier, limits)
            for row in rows:
                row["model_version"] = version.version
                if row["status"] == REFUSED:
                    refused[row["reason"]] += 1
                else:
                    predicted[row["predicted_class"]] += 1
                    abstained += row["abstained"]
                    strange += row["out_of_distribution"]
            part.add(pa.RecordBatch.from_pylist(rows, schema))
    record = {
        "name": piece.name,
        "files": len(piece.files),
        "scored": sum(predicted.values()),
        "refused": dict(refused),
        "predicted": dict(predicted),
        "abstained": int(abstained),
        "out_of_distribution": int(strange),
        "stored_bytes": part.bytes,
        "seconds": time.perf_counter() - started,
    }
    write_file(filesystem, f"{folder}/_{piece.name}.json", json.dumps(record).encode())
    return record


def _score_batch(
    files: tuple[tuple[str, str, str | None], ...], classifier: ScanClassifier, limits: DecodeLimits
) -> list[dict[str, Any]]:
    """A row a file, in their order."""
    rows: list[dict[str, Any]] = []
    prepared: list[NDArray[np.uint8]] = []
    asked: list[dict[str, Any]] = []
    for path, url, label in files:
        row: dict[str, Any] = {"path": path, "label": label, "status": SCORED, "reason": ""}
        rows.append(row)
        content = read_source(url, limits)
        if isinstance(content, Inspection):
            row |= {"status": REFUSED, "reason": content.reason}
            continue
        row["scan_id"] = hashlib.sha256(content).hexdigest()
        try:
            prepared.append(classifier.prepare(content, limits))
        except RefusedImage as error:
            row |= {"status": REFUSED, "reason": error.reason}
        else:
            asked.append(row)
    if not prepared:
        return rows
    answers = classifier.answer(np.stack(prepared))
    for place, row in enumerate(asked):
        best = int(answers.calibrated[place].argmax())
        row |= {
            "predicted_class": classifier.classes[best],
            "confidence": float(answers.calibrated[place, best]),
            "abstained": bool(answers.abstained[place]),
            "out_of_distribution": bool(answers.out_of_distribution[place]),
            "distance": float(answers.distances[place]),
        }
        for index, name in enumerate(classifier.classes):
            row[f"probability_{name}"] = float(answers.calibrated[place, index])
            row[f"uncalibrated_{name}"] = float(answers.probabilities[place, index])
    return rows


def plan_pieces(files: pd.DataFrame, version: FolderVersion, limits: DecodeLimits) -> list[ScorePiece]:
    """Cut a list of files into pieces, named by all that decides about their scores but the content.

    Args:
        files: As in :class:`Scoring`.
        version: The classifier.
        limits: What is refused.

    Example:
        >>> [len(piece.files) for piece in plan_pieces(files, version, DecodeLimits())]  # doctest: +SKIP
        [512, 512, 88]
    """
    sizes = files["bytes"].to_numpy()
    cuts, held = [0], 0
    for row, size in enumerate(sizes.tolist()):
        if row > cuts[-1] and (row - cuts[-1] == PIECE_FILES or held + size > PIECE_BYTES):
            cuts.append(row)
            held = 0
        held += size
    pieces = []
    for number, (start, stop) in enumerate(zip(cuts, [*cuts[1:], len(files)], strict=True)):
        own = files.iloc[start:stop]
        rows = tuple(
            zip(own["path"], own["url"], own["label"].where(own["label"].notna(), None), strict=True)
        )
        ingredients = [version.checksums, rows, own["bytes"].tolist(), vars(limits)]
        key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode("utf-8", "surrogateescape"))
        pieces.append(ScorePiece(f"part-{number:05d}-{key.hexdigest()[:12]}", rows))
    return pieces


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
