"""Nodes of the pipeline `reporting`: predict the test split, measure, draw, write the page."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.bootstrap import bootstrap_intervals
from brain_mri.evaluation.calibration import reliability_bins
from brain_mri.evaluation.metrics import (
    classification_report,
    compute_metrics,
    confusion_matrix,
    interpret,
    roc_curves,
)
from brain_mri.evaluation.selective import SURE, coverage_curve
from brain_mri.inference.classifier import CALIBRATION_FILE, RECIPE_FILE
from brain_mri.models.shards import Shards
from brain_mri.models.version import HISTORY_FILE, METADATA_FILE
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.predicting import display_names
from brain_mri.report import figures, results, speed
from brain_mri.report.page import build_page

log = logging.getLogger(__name__)

EXAMPLES, WRONG_EXAMPLES = 12, 4


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
        ``classification_report``: what the figures and the page are made of, see the keys below. Its
        ``intervals`` hold the lower and upper end of the 95 % interval of a metric by its name.
    """
    fitted = read_document(classifier, CALIBRATION_FILE)
    names = display_names(predictions)
    classes = list(names)
    raw = predictions[[f"probability_{name}" for name in classes]].to_numpy()
    calibrated = predictions[[f"calibrated_{name}" for name in classes]].to_numpy()
    labels, predicted = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    right, answered = labels == predicted, ~predictions["abstained"].to_numpy()
    confidence = predictions["confidence"].to_numpy()
    bins = parameters.calibration_bins
    before = compute_metrics(labels, raw, classes, bins)
    metrics: dict[str, float | None] = {
        **compute_metrics(labels, calibrated, classes, bins),
        **{f"{name}_uncalibrated": before[name] for name in ("log_loss", "ece", "brier")},
        "coverage": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "out_of_distribution_share": float(predictions["out_of_distribution"].mean()),
        "preprocessing_images_per_second": preprocessing_stats["images_per_second"],
    }
    counts = confusion_matrix(labels, predicted, len(classes))
    report = {
        "names": names,
        "scans": len(predictions),
        "right": int(right.sum()),
        "abstained": int((~answered).sum()),
        "per_class": classification_report(labels, predicted, classes),
        "intervals": bootstrap_intervals(
            labels, calibrated, predictions["duplicate_group"], classes, parameters.seed,
            parameters.bootstrap_replicates, bins=bins,
        ),
        "sure": {
            "confidence": SURE,
            "scans": int((confidence >= SURE).sum()),
            "right": int(right[confidence >= SURE].sum()),
        },
        "groups": int(predictions["duplicate_group"].nunique()),
        "confusion_matrix": counts.tolist(),
        "sentences": interpret(counts, names),
        "roc_curves": roc_curves(labels, calibrated, classes),
        "coverage_curve": coverage_curve(calibrated, labels),
        "calibration": {
            "temperature": fitted["temperature"],
            "abstention_threshold": fitted["abstention_threshold"],
            "before": reliability_bins(raw, labels, bins),
            "after": reliability_bins(calibrated, labels, bins),
            "ece_before": before["ece"],
            "ece_after": metrics["ece"],
        },
    }  # fmt: skip
    low, high = report["intervals"]["accuracy"]
    log.info(
        "Test split: %d of %d scans right (accuracy %.3f, 95 %% interval %.3f to %.3f).", report["right"],
        len(labels), right.mean(), low, high,
    )  # fmt: skip
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


def draw_coverage(report: Mapping[str, Any], split_metadata: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of the answers against the share of scans that are answered."""
    threshold = report["calibration"]["abstention_threshold"]
    return results.coverage(report["coverage_curve"], threshold, is_synthetic(split_metadata))


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
    names = display_names(predictions)
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
    explanations: Mapping[str, Any],
    repetitions: Mapping[str, Any],
    section_comparison: Mapping[str, Any],
    section_benchmarks: Mapping[str, Any],
    section_training: Mapping[str, Any],
    section_tuning: Mapping[str, Any],
    section_audit: Mapping[str, Any],
    runtime_vs_workers_png: bytes,
    **pictures: bytes,
) -> str:
    """Write the page; `pictures` are PNG bytes as ``<figure>_png``.

    A section that is empty is left out; that of benchmarks with the figure that would only say so.
    """
    sections: list[Mapping[str, Any]] = []
    if section_comparison:
        sections.append(section_comparison)
    if section_benchmarks:
        picture = {
            "caption": "Preprocessing with more and more workers.",
            "png": base64.b64encode(runtime_vs_workers_png).decode(),
        }
        shown = [*section_benchmarks.get("figures", ()), picture]
        sections.append({**section_benchmarks, "figures": shown})
    metadata = read_document(classifier, METADATA_FILE)
    if (
        section_training
        and section_training.get("backbone") == read_document(classifier, RECIPE_FILE)["backbone"]
    ):
        sections.append(section_training)
    if section_tuning and section_tuning["preparation"] == metadata["data"]["preparation"]:  # of these scans
        tuned = metadata.get("tuning") or {}
        used = all(tuned.get(name) == section_tuning[name] for name in ("study", "trial"))
        said = "with it." if used else "without it; training.config=tuned trains with it."
        words = [*section_tuning["paragraphs"], f"The classifier of this report was trained {said}"]
        page = {name: section_tuning[name] for name in ("title", "tables", "figures")}
        sections.append({**page, "paragraphs": words})
    if section_audit and section_audit["version"] == classifier.version:
        sections.append({name: section_audit[name] for name in ("title", "paragraphs", "tables", "figures")})
    return build_page(
        metrics=metrics,
        report=classification_report,
        split_metadata=split_metadata,
        preprocessing_stats=preprocessing_stats,
        exploration=exploration,
        training_history=read_document(classifier, HISTORY_FILE),
        model_metadata=metadata,
        recipe=read_document(classifier, RECIPE_FILE),
        version=classifier.version,
        explanations=explanations,
        repetitions=repetitions,
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
