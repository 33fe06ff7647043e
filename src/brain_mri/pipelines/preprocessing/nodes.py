"""Nodes of the preprocessing pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.split import SPLITS
from brain_mri.datasets.shards import ShardSet, model_input_schema
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.report import figures
from brain_mri.spark.batches import MappedBatches, prepared_scans

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
else:
    DataFrame = Any  # Kedro resolves the hints of nodes, and these imports would slow every command down

logger = logging.getLogger(__name__)

SAMPLES = 8


class ModelInputError(ValueError):
    """What preprocessing wrote is not what the manifest asked for."""


def prepare_model_inputs(
    scans: DataFrame, manifest: pd.DataFrame, metadata: Mapping[str, Any], parameters: PreprocessingParameters
) -> tuple[MappedBatches, ...]:
    """Join the split to the scans, decode, convert to grey, resize: lazily, carried out by Spark when saved.

    Returns:
        Model inputs of train, validation and test: `scan_id`, `label` (index), `pixels` (image_size² bytes).
    """
    from pyspark.sql.functions import broadcast

    classes = tuple(metadata["classes"])
    schema = model_input_schema(parameters.image_size, classes)
    accepted = manifest.loc[manifest["status"] == "accepted", ["scan_id", "label", "split"]]
    rows = accepted.assign(label=accepted["label"].map(classes.index))
    results = []
    for split in SPLITS:
        wanted = rows.loc[rows["split"] == split, ["scan_id", "label"]]
        table = scans.sparkSession.createDataFrame(
            wanted.to_records(index=False).tolist(), "scan_id string, label long"
        )
        # The table has a hundred bytes a scan, the scans some ten thousand: send the table to the scans.
        frame = scans.join(broadcast(table), "scan_id").select("scan_id", "label", "content")
        results.append(prepared_scans(frame, parameters.options(), schema))
    return tuple(results)


def check_model_inputs(
    train: ShardSet,
    validation: ShardSet,
    test: ShardSet,
    metadata: Mapping[str, Any],
    parameters: PreprocessingParameters,
) -> dict[str, Any]:
    """Check what was written against the manifest, and sum up the stats records of its partitions.

    Returns:
        `parameters`, `splits` (split to rows, labels, images per partition, seconds of tasks preparing and
        writing), `images`, `bytes`, and `images_per_second` (by the clock of the tasks, from the first start
        to the last end of each split).

    Raises:
        ModelInputError: Counts, size, classes or pixel values are not as expected.
    """
    report: dict[str, Any] = {"parameters": parameters.model_dump(mode="json"), "splits": {}}
    seconds = 0.0
    for split, shards in zip(SPLITS, (train, validation, test), strict=True):
        parts = shards.summary["parts"]
        _check_split(split, shards, metadata, parameters)
        elapsed = max(part["ended"] for part in parts) - min(part["started"] for part in parts)
        seconds += elapsed
        report["splits"][split] = {
            "rows": shards.rows,
            "labels": {name: shards.label_counts[index] for index, name in enumerate(shards.classes)},
            "images_per_partition": [part["rows"] for part in parts],
            "bytes": sum(part["bytes"] for part in parts),
            "prepare_seconds": round(sum(part["prepare"] for part in parts), 3),
            "write_seconds": round(sum(part["write"] for part in parts), 3),
            "elapsed_seconds": round(elapsed, 3),
        }
    report["images"] = sum(entry["rows"] for entry in report["splits"].values())
    report["bytes"] = sum(entry["bytes"] for entry in report["splits"].values())
    report["images_per_second"] = round(report["images"] / max(seconds, 1e-9), 1)
    logger.info(
        "Model inputs: %d images of %d×%d in %.1f s of Spark tasks' time on the clock, %.0f images/s.",
        report["images"],
        parameters.image_size,
        parameters.image_size,
        seconds,
        report["images_per_second"],
    )
    return report


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
    """Compare the stats records and the parquet footers of one split with the manifest's counts."""
    found = {name: shards.label_counts[index] for index, name in enumerate(shards.classes)}
    parts = [part for part in shards.summary["parts"] if part["rows"]]
    stored = shards.stored_rows()
    pixels = parameters.image_size**2
    checks = {
        "classes": (list(shards.classes), list(metadata["classes"])),
        "image size": (shards.image_size, parameters.image_size),
        "scans by class": (found, dict(metadata["counts"][split])),
        "rows in the parquet files": (stored, shards.rows),
        "bytes of pixels": (sum(part["bytes"] for part in parts), shards.rows * pixels),
        "pixel values that differ": (any(part["minimum"] < part["maximum"] for part in parts), True),
    }
    for what, (actual, expected) in checks.items():
        if actual != expected:
            raise ModelInputError(
                f"model_inputs_{split}: {what}: found {actual}, expected {expected}. The input may have "
                "changed while Spark read it; run `kedro run --pipelines=ingestion,preprocessing` again."
            )
