"""Nodes of the preprocessing pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.split import SPLITS
from brain_mri.datasets.prepared import Preparation, PreparedParts
from brain_mri.datasets.scans import PackedScans
from brain_mri.datasets.shards import ShardSet, model_input_schema
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.pipelines.progress import progress_bar
from brain_mri.report import figures
from brain_mri.spark.launchers import SparkLauncher

logger = logging.getLogger(__name__)

SAMPLES = 8


class ModelInputError(ValueError):
    """What preprocessing wrote is not what the manifest asked for."""


def prepare_scans(
    scans: PackedScans,
    manifest: pd.DataFrame,
    metadata: Mapping[str, Any],
    parameters: PreprocessingParameters,
) -> Preparation:
    """Plan to decode, convert to grey and resize the accepted scans; Spark carries it out when it is saved.

    Each scan is prepared once, whatever its split; a task writes a part a split.
    """
    classes = tuple(metadata["classes"])
    accepted = manifest.loc[manifest["status"] == "accepted", ["scan_id", "label", "split"]]
    rows = accepted.assign(label=accepted["label"].map(classes.index))
    schema = model_input_schema(parameters.image_size, classes)
    progress = progress_bar("Preparing scans", len(rows), "rows")
    return Preparation(scans, rows, SPLITS, parameters.options(), schema, SparkLauncher(), progress)


def publish_model_inputs(prepared: PreparedParts) -> tuple[dict[str, Any], ...]:
    """Say which parts are the model inputs of train, validation and test; saving that publishes the sets."""
    return tuple(prepared.summary(split) for split in SPLITS)


def check_model_inputs(  # noqa: PLR0917 - inputs of a node
    prepared: PreparedParts,
    train: ShardSet,
    validation: ShardSet,
    test: ShardSet,
    metadata: Mapping[str, Any],
    parameters: PreprocessingParameters,
) -> dict[str, Any]:
    """Check what was written against the manifest, and sum up the stats records of its pieces.

    Returns:
        `parameters`, `splits` (split to rows, labels, images per partition, bytes), `images`, `bytes` (of
        pixels), `stored_bytes`, `read_seconds`, `prepare_seconds`, `write_seconds` (of all tasks together),
        `elapsed_seconds` (by the clock while any task ran, in this run or, for pieces that were there
        already, in an earlier one), and `images_per_second` of these.

    Raises:
        ModelInputError: Counts, size, classes or pixel values are not as expected.
    """
    report: dict[str, Any] = {"parameters": parameters.model_dump(mode="json"), "splits": {}}
    stored = 0
    for split, shards in zip(SPLITS, (train, validation, test), strict=True):
        parts = shards.summary["parts"]
        _check_split(split, shards, metadata, parameters)
        stored += sum(part["stored_bytes"] for part in parts)
        report["splits"][split] = {
            "rows": shards.rows,
            "labels": {name: shards.label_counts[index] for index, name in enumerate(shards.classes)},
            "images_per_partition": [part["rows"] for part in parts],
            "bytes": sum(part["bytes"] for part in parts),
        }
    report["images"] = sum(entry["rows"] for entry in report["splits"].values())
    report["bytes"] = sum(entry["bytes"] for entry in report["splits"].values())
    report["stored_bytes"] = stored
    for stage in ("read", "prepare", "write"):
        report[f"{stage}_seconds"] = round(sum(record[stage] for record in prepared.records), 3)
    seconds = _busy_seconds([(record["started"], record["ended"]) for record in prepared.records])
    report["elapsed_seconds"] = round(seconds, 3)
    report["images_per_second"] = round(report["images"] / max(seconds, 1e-9), 1)
    logger.info(
        "Model inputs: %d images of %d×%d, %.1f MB of pixels in %.1f MB; %.0f images/s while tasks ran.",
        report["images"],
        parameters.image_size,
        parameters.image_size,
        report["bytes"] / 1e6,
        stored / 1e6,
        report["images_per_second"],
    )
    return report


def _busy_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span: pauses between a broken-off run and the next do not count."""
    busy, until = 0.0, 0.0
    for started, ended in sorted(spans):
        busy += max(0.0, ended - max(started, until))
        until = max(until, ended)
    return busy


def draw_samples(train: ShardSet, metadata: Mapping[str, Any]) -> Figure:
    """Draw eight training scans as the network will see them.

    The classes come in turn, chosen by the seed of the split.
    """
    classes = list(train.classes)
    names = ClassSet(train.classes).display_names()
    found: dict[int, list[NDArray[np.uint8]]] = {label: [] for label in range(len(classes))}
    wanted = -(-SAMPLES // len(classes))
    for _, labels, pixels in train.batches(256, shuffle_seed=metadata["seed"]):
        for label, scan in zip(labels.tolist(), pixels, strict=True):
            if len(found[label]) < wanted:
                found[label].append(scan)
        if all(len(scans) == wanted for scans in found.values()):
            break
    chosen = [
        (label, found[label][turn]) for turn in range(wanted) for label in found if turn < len(found[label])
    ]
    titles = [names[classes[label]] for label, _ in chosen[:SAMPLES]]
    return figures.sample_grid(
        [scan for _, scan in chosen[:SAMPLES]], titles, bool(metadata["source"]["synthetic"])
    )


def _check_split(
    split: str, shards: ShardSet, metadata: Mapping[str, Any], parameters: PreprocessingParameters
) -> None:
    """Compare what the stats records say of one split with the manifest, and the files with what they say."""
    found = {name: shards.label_counts[index] for index, name in enumerate(shards.classes)}
    parts = [part for part in shards.summary["parts"] if part["rows"]]
    pixels = parameters.image_size**2
    checks = {
        "classes": (list(shards.classes), list(metadata["classes"])),
        "image size": (shards.image_size, parameters.image_size),
        "scans by class": (found, dict(metadata["counts"][split])),
        "bytes of the parquet files": (shards.stored_bytes(), sum(part["stored_bytes"] for part in parts)),
        "bytes of pixels": (sum(part["bytes"] for part in parts), shards.rows * pixels),
        "pixel values that differ": (any(part["minimum"] < part["maximum"] for part in parts), True),
    }
    for what, (actual, expected) in checks.items():
        if actual != expected:
            raise ModelInputError(
                f"model_inputs_{split}: {what}: found {actual}, expected {expected}. The input may have "
                "changed while Spark read it; run `kedro run --pipelines=ingestion,preprocessing` again."
            )
