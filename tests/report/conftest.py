"""Small results of a made-up classifier, drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brain_mri.evaluation.bootstrap import bootstrap_intervals
from brain_mri.evaluation.calibration import apply_temperature, reliability_bins
from brain_mri.evaluation.metrics import (
    classification_report,
    compute_metrics,
    confusion_matrix,
    interpret,
    roc_curves,
)
from brain_mri.evaluation.selective import coverage_curve

NAMES = {"glioma": "Glioma", "meningioma": "Meningioma", "notumor": "No tumour", "pituitary": "Pituitary"}


@pytest.fixture
def names() -> dict[str, str]:
    return dict(NAMES)


@pytest.fixture
def results() -> dict[str, Any]:
    """`metrics`, `report`, `repetitions` and `explanations` as the pipeline makes them."""
    classes = list(NAMES)
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), [31, 29, 23, 17])
    logits = generator.normal(size=(100, 4))
    logits[np.arange(100), labels] += 2.5
    raw = apply_temperature(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 0.5)
    calibrated = apply_temperature(raw, 1.9)
    counts = confusion_matrix(labels, raw.argmax(axis=1), 4)
    before, after = (compute_metrics(labels, values, classes) for values in (raw, calibrated))
    report = {
        "names": dict(NAMES),
        "scans": 100,
        "right": int(np.trace(counts)),
        "abstained": 7,
        "per_class": classification_report(labels, raw.argmax(axis=1), classes),
        "confusion_matrix": counts.tolist(),
        "sentences": interpret(counts, NAMES),
        "roc_curves": roc_curves(labels, calibrated, classes),
        "intervals": bootstrap_intervals(
            labels, calibrated, np.arange(100) // 2, classes, seed=1, replicates=100
        ),
        "groups": 50,
        "sure": {"confidence": 0.9, "scans": 64, "right": 63},
        "coverage_curve": coverage_curve(calibrated, labels),
        "calibration": {
            "temperature": 1.9,
            "abstention_threshold": 0.61,
            "before": reliability_bins(raw, labels),
            "after": reliability_bins(calibrated, labels),
            "ece_before": before["ece"],
            "ece_after": after["ece"],
        },
    }
    extra = {"coverage": 0.93, "accuracy_answered": 0.9876, "preprocessing_images_per_second": 1643.2}
    row = {name: value for name, value in after.items() if value is not None}
    repetitions = {
        "single": row,
        "mirrored": {**row, "accuracy": 0.9123},
        "seeds": [{"seed": 815, "version": "2026-11-28", **row}, {"seed": 7, "version": "2026-11-27", **row}],
        "mean": {**row, "accuracy": 0.9124},
        "spread": {**row, "accuracy": 0.0125},
        "ensemble": {**row, "accuracy": 0.9126},
    }
    explanations = {
        "scans": 99,
        "head": 0.4567,
        "inside_head": {name: 0.871 + 0.01 * place for place, name in enumerate(NAMES)},
    }
    return {
        "metrics": {**after, **extra},
        "report": report,
        "repetitions": repetitions,
        "explanations": explanations,
    }


@pytest.fixture
def exploration() -> dict[str, Any]:
    """As `cohort.summary.summarise_cohort` makes it."""
    counts = {name: [1, 5, 2] for name in NAMES}
    return {
        "status": {"accepted": 714, "duplicate": 18, "quarantined": 5},
        "reason": {"truncated": 3, "blank": 2},
        "class_weights": {"glioma": 1.1, "meningioma": 0.9, "notumor": 1.0, "pituitary": 1.23},
        "size": {f"{side}×{side}": 20 - place for place, side in enumerate(range(100, 112))},
        "mode": {"L": 700, "RGB": 14},
        "format": {"JPEG": 714},
        "bit_depth": {"8": 714},
        "brightness": {"edges": [0, 85, 170, 255], "counts": counts},
    }


@pytest.fixture
def training_history() -> dict[str, Any]:
    """Two stages; the second never beat the first."""

    def epoch(number: int) -> dict[str, float]:
        return {
            "epoch": number,
            "loss": 1 / number,
            "accuracy": 1 - 0.3 / number,
            "validation_loss": 1.2 / number,
            "validation_accuracy": 1 - 0.4 / number,
            "validation_macro_f1": 1 - 0.42 / number,
            "learning_rate": 0.001,
            "images_per_second": 190.0,
            "seconds": 31.0,
        }

    def stage(name: str, epochs: int, best: int) -> dict[str, Any]:
        return {
            "name": name,
            "epochs": [epoch(number + 1) for number in range(epochs)],
            "best_epoch": best,
            "best_validation_loss": 0.4321,
            "stopped_early": epochs == 2,
            "trained_parameters": 361_860,
        }

    stages = [stage("frozen base", 5, 5), stage("fine-tuning", 2, 0)]
    return {"stages": stages, "warnings": ["It memorises."], "device": "2 CPU cores", "seconds": 754.0}
