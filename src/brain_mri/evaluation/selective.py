"""When a classifier should rather not answer, and what it gains by that.

The classifier abstains where its calibrated confidence is below a threshold: selective prediction (El-Yaniv
and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010). The threshold is found on
validation scans; the curve shows on the test split what any threshold would give.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brain_mri.evaluation.calibration import check_predictions

SURE = 0.9
"""Confidence from which on a classifier is called sure."""


class CoverageCurve(TypedDict):
    """Points from the highest threshold to the lowest, and the area between accuracy and 1."""

    threshold: list[float]
    coverage: list[float]
    accuracy: list[float]
    area_above: float


def abstention_threshold(calibrated: ArrayLike, labels: ArrayLike, target_accuracy: float) -> float:
    """Find the lowest confidence from which on answers reach the wanted accuracy.

    The classifier abstains where ``confidence < threshold``.

    Args:
        calibrated: Calibrated probabilities of validation scans, shape ``(n, k)``.
        labels: Shape ``(n,)``.
        target_accuracy: In (0, 1].

    Returns:
        The threshold in [0, 1]: 0 where all answers together are good enough already. Where no threshold
        reaches the target, the one whose answers are most often right (the lowest of several).

    Raises:
        ValueError: If the target is not in (0, 1], or probabilities and labels do not fit each other.

    Example:
        >>> abstention_threshold([[0.6, 0.4], [0.9, 0.1]], [1, 0], target_accuracy=0.99)
        0.9
    """
    if not 0 < target_accuracy <= 1:
        raise ValueError(f"The target accuracy is a share in (0, 1], got {target_accuracy}.")
    values, numbers = check_predictions(calibrated, labels)
    confidence = values.max(axis=1)
    correct = values.argmax(axis=1) == numbers
    if correct.mean() >= target_accuracy:
        return 0.0
    candidates, _, accuracies = _curve(confidence, correct)
    wanted = min(target_accuracy, float(accuracies.max()))
    return float(candidates[accuracies >= wanted][-1])


def coverage_curve(calibrated: ArrayLike, labels: ArrayLike) -> CoverageCurve:
    """Share of scans that are answered, and accuracy among those, for every threshold.

    Args:
        calibrated: Calibrated probabilities, shape ``(n, k)``.
        labels: Shape ``(n,)``.

    Returns:
        The curve. Its ``area_above`` is the mean error over all coverages (the area under the risk-coverage
        curve of Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017): 0
        is perfect.

    Raises:
        ValueError: If probabilities and labels do not fit each other.

    Example:
        >>> coverage_curve([[0.6, 0.4], [0.9, 0.1]], [1, 0])
        {'threshold': [0.9, 0.6], 'coverage': [0.5, 1.0], 'accuracy': [1.0, 0.5], 'area_above': 0.25}
    """
    values, numbers = check_predictions(calibrated, labels)
    confidence = values.max(axis=1)
    thresholds, coverage, accuracy = _curve(confidence, values.argmax(axis=1) == numbers)
    steps = np.diff(coverage, prepend=0.0)
    return {
        "threshold": thresholds.tolist(),
        "coverage": coverage.tolist(),
        "accuracy": accuracy.tolist(),
        "area_above": float(((1 - accuracy) * steps).sum()),
    }


def _curve(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds from high to low, the share of scans at or above each, and the accuracy among those."""
    order = np.argsort(-confidence, kind="stable")
    thresholds = confidence[order]
    answered = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(correct[order]) / answered
    is_last = np.append(np.diff(thresholds) != 0, True)  # equal confidences are answered or refused together
    return thresholds[is_last], answered[is_last] / len(order), accuracy[is_last]
