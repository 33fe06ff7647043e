"""The node of the pipeline `reporting` that asks the classifier about the test split."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_mri.cohort.classes import ClassSet
from brain_mri.datasets.versions import FolderVersion
from brain_mri.inference.classifier import Answers, ScanClassifier
from brain_mri.models.shards import Shards
from brain_mri.models.version import METADATA_FILE
from brain_mri.pipelines.reporting.parameters import ReportingParameters

log = logging.getLogger(__name__)


class OtherClassesError(ValueError):
    """Classifier and test split were made for different classes."""


class OtherScansError(ValueError):
    """Test split and manifest are of different scans."""


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
        ``probability_<class>`` (the network's own) and ``calibrated_<class>``, and ``duplicate_group``.

    Raises:
        OtherClassesError: Classifier and test split have different classes.
        OtherScansError: The manifest does not know a test scan.
        ValueError: There are no test scans.
    """
    engine = ScanClassifier(classifier.read)
    if engine.classes != tuple(model_inputs_test.classes):
        raise OtherClassesError(
            f"The classifier knows the classes {', '.join(engine.classes)}; the test split has "
            f"{', '.join(model_inputs_test.classes)}. Run `kedro run --pipelines=training,reporting`."
        )
    metadata = json.loads(classifier.read(METADATA_FILE))
    if metadata.get("data", {}).get("preparation", "") != model_inputs_test.preparation:
        log.warning(
            "The classifier was trained on model inputs of another preparation than these test scans. Where "
            "the splits were drawn anew since, it may have seen some of them: run training again."
        )
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
    return table


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
