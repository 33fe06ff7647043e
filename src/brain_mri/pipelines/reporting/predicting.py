"""The node of the pipeline `reporting` that asks the classifier about the test split."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_mri.cohort.classes import ClassSet
from brain_mri.datasets.shards import scan_numbers
from brain_mri.datasets.versions import FolderVersion
from brain_mri.inference.classifier import CALIBRATION_FILE, REFERENCE_FILE, Answers, ScanClassifier
from brain_mri.models.shards import Shards
from brain_mri.models.version import read_seen
from brain_mri.pipelines.reporting.parameters import ReportingParameters

log = logging.getLogger(__name__)


class OtherClassesError(ValueError):
    """Classifier and test split were made for different classes."""


class OtherScansError(ValueError):
    """Test split and manifest are of different scans."""


class SeenScansError(ValueError):
    """The classifier was trained or validated on scans that it is to be tested on."""


class OtherVersionError(ValueError):
    """Predictions are of another version than the one that is asked."""


def count_seen(version: FolderVersion, shards: Shards) -> int:
    """On how many of some scans a version was trained or validated."""
    return int(np.isin(scan_numbers(shards.scan_ids), read_seen(version.read)).sum())


def refuse_seen(version: FolderVersion, test: Shards) -> None:
    """See that a version has seen no scan of a test split.

    Raises:
        SeenScansError: It has.
    """
    seen = count_seen(version, test)
    if seen:
        raise SeenScansError(
            f"Version {version.version} was trained or validated on {seen:,} of the {test.rows:,} scans of "
            "this test split, since the splits were drawn anew: what it says of them is no measurement. Run "
            "`kedro run --pipelines=training,reporting`, or ingestion and preprocessing with the parameters "
            "of then."
        )


def fingerprint_of(version: FolderVersion) -> str:
    """Tells networks apart, and is the same where a training was repeated.

    Files of graphs differ then, by the names of their nodes; what the network makes of training and
    validation scans does not.
    """
    parts = [version.checksums[name] for name in (REFERENCE_FILE, CALIBRATION_FILE)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def refuse_other_version(version: FolderVersion, predictions: pd.DataFrame) -> None:
    """See that predictions are those of a version.

    Raises:
        OtherVersionError: They are not.
    """
    if set(predictions["model_fingerprint"]) != {fingerprint_of(version)}:
        raise OtherVersionError(
            f"The predictions are not those of version {version.version}, which this run asks. Run "
            "`kedro run --pipelines=reporting` first, or name both pipelines: "
            "`--pipelines=audit,reporting`."
        )


def predict_test(
    classifier: FolderVersion,
    model_inputs_test: Shards,
    manifest: pd.DataFrame,
    parameters: ReportingParameters,
) -> pd.DataFrame:
    """Predict every scan of the test split with the version's engine, one forward pass each.

    Returns:
        A row per scan, sorted by ``scan_id``: ``label``, ``label_name``, ``predicted``, ``predicted_name``
        (class indices and keys), ``confidence`` (largest calibrated probability), ``abstained``,
        ``out_of_distribution``, ``distance`` (from the training scans), for every class
        ``probability_<class>`` (the network's own) and ``calibrated_<class>``, ``duplicate_group`` and
        ``model_fingerprint`` (:func:`fingerprint_of`).

    Raises:
        OtherClassesError: Classifier and test split have different classes.
        OtherScansError: The manifest does not know a test scan, or scans are prepared otherwise.
        SeenScansError: The classifier was trained or validated on a test scan.
        ValueError: There are no test scans.
    """
    engine = ScanClassifier(classifier.read)
    if engine.classes != tuple(model_inputs_test.classes):
        raise OtherClassesError(
            f"The classifier knows the classes {', '.join(engine.classes)}; the test split has "
            f"{', '.join(model_inputs_test.classes)}. Run `kedro run --pipelines=training,reporting`."
        )
    if engine.options != model_inputs_test.prepare_options:
        raise OtherScansError(
            f"The classifier takes scans that are prepared otherwise ({engine.options}) than this test split "
            f"({model_inputs_test.prepare_options}). Run `kedro run --pipelines=training,reporting`."
        )
    refuse_seen(classifier, model_inputs_test)
    start = time.perf_counter()
    parts = [
        tabulate_answers(scan_ids, labels, engine.answer(pixels), engine.classes)
        for scan_ids, labels, pixels in model_inputs_test.batches(parameters.batch_size)
    ]
    if not parts:
        raise ValueError("There are no test scans to predict.")
    table = pd.concat(parts).sort_values("scan_id", ignore_index=True)
    log.info("Predicted %s test scans, %.0f scans/s.", f"{len(table):,}",
             len(table) / (time.perf_counter() - start))  # fmt: skip
    accepted = manifest.loc[manifest["status"] == "accepted", ["scan_id", "duplicate_group"]]
    table = table.merge(accepted, on="scan_id", how="left", validate="one_to_one")
    unknown = int(table["duplicate_group"].isna().sum())
    if unknown:
        raise OtherScansError(
            f"{unknown} of {len(table)} test scans are not in the manifest: ingestion has run since the "
            "model inputs were made. Run `kedro run --pipelines=preprocessing,training,reporting`."
        )
    return table.assign(model_fingerprint=fingerprint_of(classifier))


def tabulate_answers(
    scan_ids: NDArray[np.str_], labels: NDArray[np.int64], answers: Answers, classes: Sequence[str]
) -> pd.DataFrame:
    """Turn answers of the engine into rows of the table that :func:`predict_test` returns."""
    predicted = answers.calibrated.argmax(axis=1)
    keys = np.array(classes, dtype=object)
    columns = {
        "scan_id": scan_ids,
        "label": labels,
        "label_name": keys[labels],
        "predicted": predicted,
        "predicted_name": keys[predicted],
        "confidence": answers.calibrated.max(axis=1),
        "abstained": answers.abstained,
        "out_of_distribution": answers.out_of_distribution,
        "distance": answers.distances,
        **{f"probability_{key}": answers.probabilities[:, index] for index, key in enumerate(classes)},
        **{f"calibrated_{key}": answers.calibrated[:, index] for index, key in enumerate(classes)},
    }
    return pd.DataFrame(columns)


def display_names(predictions: pd.DataFrame) -> dict[str, str]:
    """Display name of each class key, in class order, which the columns of probabilities keep.

    Args:
        predictions: From :func:`predict_test`.
    """
    prefix = "calibrated_"
    classes = tuple(name.removeprefix(prefix) for name in predictions.columns if name.startswith(prefix))
    return {name: ClassSet(classes).display(name) for name in classes}
