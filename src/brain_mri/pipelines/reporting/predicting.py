"""The node of the pipeline `reporting` that asks the classifier about the test split."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from brain_mri.cohort.classes import ClassSet
from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.calibration import apply_temperature
from brain_mri.models.predict import Predictions, predict_shards
from brain_mri.models.shards import Shards
from brain_mri.models.version import Calibration, TrainedClassifier
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
    """Predict every scan of the test split, one forward pass each.

    Returns:
        A row per scan, sorted by ``scan_id``: ``duplicate_group``, ``label``, ``label_name``, ``predicted``,
        ``predicted_name`` (class indices and keys), ``confidence`` (largest calibrated probability),
        ``abstained``, and for every class ``probability_<class>`` (the network's own) and
        ``calibrated_<class>``.

    Raises:
        OtherClassesError: Classifier and test split have different classes.
        OtherScansError: The manifest does not know a test scan.
        ValueError: There are no test scans.
    """
    trained = TrainedClassifier.from_files(classifier.read)
    classes = trained.recipe.classes
    if classes != tuple(model_inputs_test.classes):
        raise OtherClassesError(
            f"The classifier knows the classes {', '.join(classes)}; the test split has "
            f"{', '.join(model_inputs_test.classes)}. Run `kedro run --pipelines=training,reporting`."
        )
    if trained.metadata.get("data", {}).get("preparation", "") != model_inputs_test.preparation:
        log.warning(
            "The classifier was trained on model inputs of another preparation than these test scans. Where "
            "the splits were drawn anew since, it may have seen some of them: run training again."
        )
    start = time.perf_counter()
    answers = predict_shards(trained.network, model_inputs_test, parameters.batch_size)
    rate = len(answers.labels) / (time.perf_counter() - start)
    log.info("Predicted %s test scans, %.0f scans/s.", f"{len(answers.labels):,}", rate)
    table = tabulate_predictions(answers, classes, trained.calibration)
    accepted = manifest.loc[manifest["status"] == "accepted", ["scan_id", "duplicate_group"]]
    table = table.merge(accepted, on="scan_id", how="left", validate="one_to_one")
    unknown = int(table["duplicate_group"].isna().sum())
    if unknown:
        raise OtherScansError(
            f"{unknown} of {len(table)} test scans are not in the manifest: ingestion has run since the "
            "model inputs were made. Run `kedro run --pipelines=preprocessing,training,reporting`."
        )
    return table


def tabulate_predictions(
    answers: Predictions, classes: Sequence[str], calibration: Calibration
) -> pd.DataFrame:
    """Turn the network's answers into the table that :func:`predict_test` returns."""
    labels, probabilities = answers.labels, answers.probabilities
    calibrated = apply_temperature(probabilities, calibration.temperature)
    predicted, confidence = calibrated.argmax(axis=1), calibrated.max(axis=1)
    keys = np.array(classes, dtype=object)
    columns = {
        "scan_id": answers.scan_ids,
        "label": labels,
        "label_name": keys[labels],
        "predicted": predicted,
        "predicted_name": keys[predicted],
        "confidence": confidence,
        "abstained": confidence < calibration.abstention_threshold,
        **{f"probability_{key}": probabilities[:, index] for index, key in enumerate(classes)},
        **{f"calibrated_{key}": calibrated[:, index] for index, key in enumerate(classes)},
    }
    return pd.DataFrame(columns).sort_values("scan_id", ignore_index=True)


def display_names(predictions: pd.DataFrame) -> dict[str, str]:
    """Display name of each class key, in class order, which the columns of probabilities keep.

    Args:
        predictions: From :func:`predict_test`.
    """
    prefix = "calibrated_"
    classes = tuple(name.removeprefix(prefix) for name in predictions.columns if name.startswith(prefix))
    return {name: ClassSet(classes).display(name) for name in classes}
