"""Scoring a piece of a list of files: what one task does.

It reads its files, prepares them as the network's training scans were, asks the engine and writes a part of
the table. So neither files nor answers pass through the driver, whose memory is that of the list of files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from brain_mri.datasets.packing import read_source
from brain_mri.datasets.versions import FolderVersion
from brain_mri.imaging.decode import DecodeLimits, RefusedImage
from brain_mri.imaging.inspect import Inspection
from brain_mri.imaging.resize import use_one_thread
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.storage.files import open_filesystem, write_file
from brain_mri.storage.parquet import write_parquet
from brain_mri.storage.retry import retried

PIECE_FILES, PIECE_BYTES = 512, 64 * 2**20
"""Files that a task scores, at most, and their bytes: some seconds' work, in memory for a batch at a time."""

SCORED, REFUSED = "scored", "refused"
_BATCH = 32
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


@dataclass(frozen=True)
class ScorePiece:
    """Files that one task scores: name of the part, then path, URL and label of each."""

    name: str
    files: tuple[tuple[str, str, str | None], ...]


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
