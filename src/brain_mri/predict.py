"""What `kedro predict` does beyond running the pipeline `inference`: it prints the table, and explains."""

from __future__ import annotations

import csv
import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import cv2
import numpy as np

from brain_mri.datasets.packing import read_source
from brain_mri.datasets.scores import Scores
from brain_mri.datasets.scoring import SCORED
from brain_mri.datasets.versions import FolderVersion
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.overlay import overlay_heat
from brain_mri.imaging.prepare import prepare_scan
from brain_mri.models.explain import make_explainer
from brain_mri.models.version import TrainedClassifier

log = logging.getLogger(__name__)

SHOWN = 20
_EXPLAINED_AT_ONCE = 16


def write_csv(scores: Scores, stream: IO[str]) -> None:
    """Write the table as CSV, a header first."""
    writer: Any = None
    for row in _rows(scores):
        if writer is None:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)


def write_json(scores: Scores, stream: IO[str]) -> None:
    """Write the table as a JSON array of objects, a line each."""
    stream.write("[")
    for number, row in enumerate(_rows(scores)):
        stream.write(",\n" if number else "\n")
        stream.write(json.dumps(row, ensure_ascii=False))
    stream.write("\n]\n")


def write_text(scores: Scores, stream: IO[str]) -> None:
    """Write the first rows for people, and where the whole table is."""
    summary = scores.summary
    rows = list(itertools.islice(_rows(scores), SHOWN))
    width = max((len(row["path"]) for row in rows), default=0)
    for row in rows:
        if row["status"] != SCORED:
            said = f"refused: {row['reason']}"
        else:
            doubts = [
                "it would rather abstain" if row["abstained"] else "",
                "unlike the training scans" if row["out_of_distribution"] else "",
            ]
            doubt = "; ".join(filter(None, doubts))
            said = f"{row['predicted_class']} {row['confidence']:.1%}" + (f" ({doubt})" if doubt else "")
        stream.write(f"{row['path']:<{width}}  {said}\n")
    if summary["files"] > len(rows):
        stream.write(f"… and {summary['files'] - len(rows):,} more.\n")
    stream.write(f"The whole table: {scores.url}\n")
    stream.write("Research software: not a medical device, and its answers are not a diagnosis.\n")


def write_explanations(
    scores: Scores, version: FolderVersion, folder: Path, urls: Mapping[str, str], limits: DecodeLimits
) -> int:
    """Write a picture a scored file: the scan as the network saw it, under what spoke for the class.

    Args:
        scores: The table.
        version: The classifier that made it.
        folder: Where to; a file is named like its scan, with the class, and lies in the same folders.
        urls: Where the file of each path is.
        limits: Of the files, as they were scored.

    Returns:
        How many.
    """
    trained = TrainedClassifier.from_files(version.read)
    explain = make_explainer(trained.network, "hirescam")
    rows = (row for row in _rows(scores) if row["status"] == SCORED)
    written = 0
    while batch := list(itertools.islice(rows, _EXPLAINED_AT_ONCE)):
        found = [(row, read_source(urls[row["path"]], limits)) for row in batch if row["path"] in urls]
        prepared = [
            (row, prepare_scan(content, trained.preparation, limits))
            for row, content in found
            if isinstance(content, bytes)
        ]
        if len(prepared) < len(batch):
            log.warning("%d files are gone since they were scored.", len(batch) - len(prepared))
        if not prepared:
            continue
        pixels = np.stack([grey for _, grey in prepared])
        chosen = [trained.recipe.classes.index(row["predicted_class"]) for row, _ in prepared]
        maps = explain(pixels[..., np.newaxis], chosen).maps
        for (row, grey), heat in zip(prepared, maps, strict=True):
            path = folder / explanation_name(row["path"], row["predicted_class"])
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = cv2.cvtColor(overlay_heat(grey, heat), cv2.COLOR_RGB2BGR)
            _, encoded = cv2.imencode(".png", picture)
            path.write_bytes(encoded.tobytes())
            written += 1
    log.info("%s explanations written to %s.", f"{written:,}", folder)
    return written


def explanation_name(path: str, predicted: str) -> str:
    """Where the picture of a scan lies below the folder of explanations.

    Example:
        >>> explanation_name("hdfs:///scans/new/1.jpg", "glioma"), explanation_name("../x/2.png", "notumor")
        ('scans/new/1.jpg.glioma.png', 'x/2.png.notumor.png')
    """
    parts = PurePosixPath(path.partition("://")[2] or path).parts
    return "/".join([*(part for part in parts if part not in {"/", "..", "."})]) + f".{predicted}.png"


def _rows(scores: Scores) -> Iterator[dict[str, Any]]:
    for table in scores.tables():
        yield from table.to_pylist()
