"""Nodes of the pipeline `reporting`: predict the test split, measure, draw, write the page."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from brain_mri.cohort.classes import ClassSet
from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.calibration import apply_temperature, reliability_bins
from brain_mri.evaluation.metrics import (
    classification_report,
    compute_metrics,
    confusion_matrix,
    interpret,
    roc_curves,
)
from brain_mri.models.predict import Predictions, predict_shards
from brain_mri.models.shards import Shards
from brain_mri.models.version import (
    CALIBRATION_FILE,
    HISTORY_FILE,
    METADATA_FILE,
    Calibration,
    TrainedClassifier,
)
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.report import figures, results, speed
from brain_mri.report.page import build_page

log = logging.getLogger(__name__)

EXAMPLES, WRONG_EXAMPLES = 12, 4


class OtherClassesError(ValueError):
    """Classifier and test split were made for different classes."""


def predict_test(
    classifier: FolderVersion, model_inputs_test: Shards, parameters: ReportingParameters
) -> pd.DataFrame:
    """Predict every scan of the test split, one forward pass each.

    Returns:
        A row per scan, sorted by ``scan_id``: ``label``, ``label_name``, ``predicted``, ``predicted_name``
        (class indices and keys), ``confidence`` (largest calibrated probability), ``abstained``, and for
        every class ``probability_<class>`` (the network's own) and ``calibrated_<class>``.

    Raises:
        OtherClassesError: Classifier and test split have different classes.
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
    return tabulate_predictions(answers, classes, trained.calibration)


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


def evaluate(
    predictions: pd.DataFrame,
    classifier: FolderVersion,
    preprocessing_stats: Mapping[str, Any],
    parameters: ReportingParameters,
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measure the predictions. Every test scan counts, those abstained from too, unless a key says otherwise.

    Returns:
        ``metrics``: the flat table, of calibrated probabilities (what users of the model see), with the
        uncalibrated ``…_uncalibrated`` beside it, ``coverage`` (share of scans not abstained from) and
        ``accuracy_answered`` (among those), ``preprocessing_images_per_second``.
        ``classification_report``: what the figures and the page are made of, see the keys below.
    """
    fitted = read_document(classifier, CALIBRATION_FILE)
    names = _display_names(predictions)
    classes = list(names)
    raw = predictions[[f"probability_{name}" for name in classes]].to_numpy()
    calibrated = predictions[[f"calibrated_{name}" for name in classes]].to_numpy()
    labels, predicted = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    right, answered = labels == predicted, ~predictions["abstained"].to_numpy()
    bins = parameters.calibration_bins
    before = compute_metrics(labels, raw, classes, bins)
    metrics: dict[str, float | None] = {
        **compute_metrics(labels, calibrated, classes, bins),
        **{f"{name}_uncalibrated": before[name] for name in ("log_loss", "ece", "brier")},
        "coverage": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "preprocessing_images_per_second": preprocessing_stats["images_per_second"],
    }
    counts = confusion_matrix(labels, predicted, len(classes))
    report = {
        "names": names,
        "scans": len(predictions),
        "right": int(right.sum()),
        "abstained": int((~answered).sum()),
        "per_class": classification_report(labels, predicted, classes),
        "confusion_matrix": counts.tolist(),
        "sentences": interpret(counts, names),
        "roc_curves": roc_curves(labels, calibrated, classes),
        "calibration": {
            "temperature": fitted["temperature"],
            "abstention_threshold": fitted["abstention_threshold"],
            "before": reliability_bins(raw, labels, bins),
            "after": reliability_bins(calibrated, labels, bins),
            "ece_before": before["ece"],
            "ece_after": metrics["ece"],
        },
    }
    log.info("Test split: %d of %d scans right (accuracy %.3f).", report["right"], len(labels), right.mean())
    return metrics, report


def draw_training_history(classifier: FolderVersion, split_metadata: Mapping[str, Any]) -> Figure:
    """Draw loss and accuracy of all stages."""
    stages = read_document(classifier, HISTORY_FILE)["stages"]
    return figures.training_history(stages, is_synthetic(split_metadata))


def draw_confusion_matrix(report: Mapping[str, Any], split_metadata: Mapping[str, Any]) -> Figure:
    """Draw what every class was taken for."""
    synthetic = is_synthetic(split_metadata)
    return results.confusion_matrix(report["confusion_matrix"], report["names"], synthetic)


def draw_per_class_metrics(report: Mapping[str, Any], split_metadata: Mapping[str, Any]) -> Figure:
    """Draw precision, recall and F1 as bars."""
    return results.per_class_metrics(report["per_class"], report["names"], is_synthetic(split_metadata))


def draw_roc_curves(report: Mapping[str, Any], split_metadata: Mapping[str, Any]) -> Figure:
    """Draw a ROC curve per class."""
    return results.roc_curves(report["roc_curves"], report["names"], is_synthetic(split_metadata))


def draw_calibration(report: Mapping[str, Any], split_metadata: Mapping[str, Any]) -> Figure:
    """Draw reliability before and after temperature scaling."""
    values = report["calibration"]
    errors = (values["ece_before"], values["ece_after"])
    return results.calibration(
        values["before"], values["after"], errors, values["temperature"], is_synthetic(split_metadata)
    )


def draw_sample_predictions(
    predictions: pd.DataFrame,
    model_inputs_test: Shards,
    split_metadata: Mapping[str, Any],
    parameters: ReportingParameters,
) -> Figure:
    """Draw twelve test scans with their predictions, up to four of them wrong ones."""
    chosen = choose_examples(predictions, parameters.seed)
    wanted = set(chosen["scan_id"])
    pixels = {}
    for ids, _, images in model_inputs_test.batches(parameters.batch_size):
        pixels.update({key: image for key, image in zip(ids.tolist(), images, strict=True) if key in wanted})
    names = _display_names(predictions)
    samples = [
        results.SamplePrediction(pixels[scan_id], names[label], names[predicted], float(confidence))
        for scan_id, label, predicted, confidence in zip(
            chosen["scan_id"],
            chosen["label_name"],
            chosen["predicted_name"],
            chosen["confidence"],
            strict=True,
        )
    ]
    return results.sample_predictions(samples, is_synthetic(split_metadata))


def choose_examples(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw twelve rows at random: four wrong ones where there are so many, the rest right, mixed.

    A plain draw from a good classifier would show no mistake at all, and mistakes are what one learns from.
    """
    generator = np.random.default_rng(seed)
    order = predictions.iloc[generator.permutation(len(predictions))]
    wrong = order[order["label"] != order["predicted"]]
    right = order[order["label"] == order["predicted"]]
    shown = min(len(wrong), max(WRONG_EXAMPLES, EXAMPLES - len(right)))
    chosen = pd.concat([wrong[:shown], right[: EXAMPLES - shown]])
    return chosen.iloc[generator.permutation(len(chosen))]


def draw_throughput_stages(
    preprocessing_stats: Mapping[str, Any], classifier: FolderVersion, split_metadata: Mapping[str, Any]
) -> Figure:
    """Draw images a second of every stage that records them."""
    rates = stage_rates(preprocessing_stats, read_document(classifier, HISTORY_FILE)["stages"])
    return speed.throughput_stages(rates, is_synthetic(split_metadata))


def stage_rates(stats: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Images a second by stage: those of tasks for a core, that of preprocessing for all cores together."""
    parts = {"read scans": "read", "decode, grey, resize": "prepare", "write, verify": "write"}
    rates = {
        f"{name} (a core)": stats["images"] / stats[f"{part}_seconds"]
        for name, part in parts.items()
        if stats.get(f"{part}_seconds")
    }
    rates["preprocessing (all cores)"] = stats["images_per_second"]
    for stage in stages:
        epochs = [epoch["images_per_second"] for epoch in stage["epochs"]]
        rates[f"training: {stage['name']}"] = float(np.mean(epochs))
    return rates


def draw_runtime_vs_workers(section_benchmarks: Mapping[str, Any]) -> Figure:
    """Draw what `benchmarks/preprocessing.py` measured, or say that it has not been run."""
    section = section_benchmarks
    return speed.runtime_vs_workers(section.get("runtime_vs_workers", ()), section.get("synthetic", False))


def build_report(
    *,
    metrics: Mapping[str, float | None],
    classification_report: Mapping[str, Any],
    split_metadata: Mapping[str, Any],
    preprocessing_stats: Mapping[str, Any],
    exploration: Mapping[str, Any],
    classifier: FolderVersion,
    section_benchmarks: Mapping[str, Any],
    section_training: Mapping[str, Any],
    section_tuning: Mapping[str, Any],
    runtime_vs_workers_png: bytes,
    **pictures: bytes,
) -> str:
    """Write the page; `pictures` are PNG bytes as ``<figure>_png``.

    A section that is empty is left out; that of benchmarks with the figure that would only say so.
    """
    sections: list[Mapping[str, Any]] = []
    if section_benchmarks:
        picture = {
            "caption": "Preprocessing with more and more workers.",
            "png": base64.b64encode(runtime_vs_workers_png).decode(),
        }
        shown = [*section_benchmarks.get("figures", ()), picture]
        sections.append({**section_benchmarks, "figures": shown})
    if section_training:
        sections.append(section_training)
    metadata = read_document(classifier, METADATA_FILE)
    if section_tuning and section_tuning["preparation"] == metadata["data"]["preparation"]:  # of these scans
        tuned = metadata.get("tuning") or {}
        used = all(tuned.get(name) == section_tuning[name] for name in ("study", "trial"))
        said = "with it." if used else "without it; training.config=tuned trains with it."
        words = [*section_tuning["paragraphs"], f"The classifier of this report was trained {said}"]
        page = {name: section_tuning[name] for name in ("title", "tables", "figures")}
        sections.append({**page, "paragraphs": words})
    return build_page(
        metrics=metrics,
        report=classification_report,
        split_metadata=split_metadata,
        preprocessing_stats=preprocessing_stats,
        exploration=exploration,
        training_history=read_document(classifier, HISTORY_FILE),
        model_metadata=read_document(classifier, METADATA_FILE),
        pictures={name.removesuffix("_png"): content for name, content in pictures.items()},
        synthetic=is_synthetic(split_metadata),
        sections=sections,
    )


def read_document(classifier: FolderVersion, name: str) -> dict[str, Any]:
    """Read a JSON document of the very version that predicted, whichever `--load-versions` chose."""
    return dict(json.loads(classifier.read(name)))


def is_synthetic(split_metadata: Mapping[str, Any]) -> bool:
    """Whether the data were drawn by our own generator."""
    return bool(split_metadata["source"]["synthetic"])


def _display_names(predictions: pd.DataFrame) -> dict[str, str]:
    """Display name of each class key, in class order, which the columns of probabilities keep."""
    prefix = "calibrated_"
    classes = tuple(name.removeprefix(prefix) for name in predictions.columns if name.startswith(prefix))
    return {name: ClassSet(classes).display(name) for name in classes}
