"""How far a classifier's probabilities can be believed, and what to do when they cannot.

A network trained with cross-entropy is usually too sure of itself. One number, the temperature, fitted on
validation scans, mends most of that without changing a single prediction (Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599).

Probabilities have shape ``(n, k)`` and rows that sum to 1, labels shape ``(n,)`` and values in ``0 … k - 1``.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

TEMPERATURE_RANGE = (0.05, 20.0)
_SMALLEST = 1e-12  # a float32 softmax underflows to exact zeros, whose logarithm would end the search


class ReliabilityBin(TypedDict):
    """The predictions with a confidence in ``(lower, upper]``; both means are None where there are none."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def check_predictions(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return both as arrays, refused when they cannot be predictions and labels of the same scans.

    Args:
        probabilities: Shape ``(n, k)``, each row in [0, 1] and summing to 1 within 0.001.
        labels: Shape ``(n,)``, whole numbers in ``0 … k - 1``.

    Returns:
        float64 probabilities whose rows sum to 1 exactly, and int64 labels.

    Raises:
        ValueError: If shapes, sums or labels do not fit; the message says which.

    Example:
        >>> check_predictions([[0.25, 0.75]], [1])
        (array([[0.25, 0.75]]), array([1]))
    """
    values = check_probabilities(probabilities)
    numbers = np.asarray(labels)
    if numbers.shape != values.shape[:1]:
        raise ValueError(
            f"Expected one label for each of {len(values)} scans, got an array of {numbers.shape}."
        )
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"Labels are class indices (integers), got {numbers.dtype}.")
    classes = values.shape[1]
    if numbers.min() < 0 or numbers.max() >= classes:
        raise ValueError(
            f"Labels lie in {numbers.min()} … {numbers.max()}, but there are probabilities for {classes} "
            f"classes (0 … {classes - 1}). Were labels and model made with the same class order?"
        )
    return values, numbers.astype(np.int64)


def check_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as float64 rows that sum to 1 exactly.

    Raises:
        ValueError: If the shape is not ``(n, k)`` with n ≥ 1 and k ≥ 2, or a row is no distribution.

    Example:
        >>> check_probabilities([[0.25, 0.75]])
        array([[0.25, 0.75]])
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"Expected probabilities of shape (scans, classes), got {values.shape}.")
    sums = values.sum(axis=1)
    if not np.isfinite(values).all() or values.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        row = int(np.argmax(~np.isfinite(sums) | (values.min(axis=1) < 0) | (np.abs(sums - 1) > 1e-3)))
        raise ValueError(
            f"Row {row} is no probability distribution: {values[row].tolist()}. "
            "Expected numbers in [0, 1] that sum to 1 (after the softmax, not before)."
        )
    return np.asarray(values / sums[:, None], dtype=np.float64)


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Soften (temperature > 1) or sharpen (< 1) probabilities; the order of the classes stays as it is.

    Softmax of ``log(p) / temperature``, which equals dividing the logits: they differ from ``log(p)`` by a
    constant per row only.

    Args:
        probabilities: Shape ``(n, k)``.
        temperature: Above 0; 1 changes nothing.

    Returns:
        float64 of the same shape.

    Raises:
        ValueError: If the temperature is not a positive number.

    Example:
        >>> apply_temperature([[0.9, 0.1]], 2.0).round(3)
        array([[0.75, 0.25]])
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"A temperature is a positive number (1 changes nothing), got {temperature}.")
    scaled = np.log(np.maximum(check_probabilities(probabilities), _SMALLEST)) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature under which the labels are most likely (Guo et al. 2017, section 4.2).

    Where nearly every answer is right, likelihood alone sharpens without end. So the labels are smoothed by
    the weight of one wrong answer: of ``n`` scans, each is ``(n + 1) / (n + 2)`` of its own class and the
    rest of the others, Laplace's rule of succession as in the targets of Platt, "Probabilistic Outputs for
    Support Vector Machines", 1999. Confidence then rises no further than so many right answers can show;
    among thousands of scans with some wrong answers one more makes little difference.

    Fit it on validation scans: on training scans the network is sure for the wrong reason, on test scans the
    measurement would no longer be one.

    Args:
        probabilities: Shape ``(n, k)``, as the network gives them.
        labels: Shape ``(n,)``.

    Returns:
        The temperature, within ``TEMPERATURE_RANGE``.

    Raises:
        ValueError: If probabilities and labels do not fit each other.

    Example:
        >>> temperature = fit_temperature([[0.7, 0.3]] * 8, [0] * 8)  # eight of eight: never above 9 in 10
        >>> apply_temperature([[0.7, 0.3]], temperature).round(3)
        array([[0.9, 0.1]])
    """
    values, numbers = check_predictions(probabilities, labels)
    logarithms = np.log(np.maximum(values, _SMALLEST))
    scans, classes = values.shape
    targets = np.full(values.shape, 1 / (scans + 2) / (classes - 1))
    targets[np.arange(scans), numbers] = (scans + 1) / (scans + 2)

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logarithms / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - (targets * scaled).sum(axis=1)))

    # The search runs over log T: halving and doubling are then steps of the same size.
    bounds = (float(np.log(TEMPERATURE_RANGE[0])), float(np.log(TEMPERATURE_RANGE[1])))
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """Compare confidence with accuracy in equal steps of confidence: the points of a reliability diagram.

    Args:
        probabilities: Shape ``(n, k)``.
        labels: Shape ``(n,)``.
        bins: Number of steps between 0 and 1, at least 1.

    Returns:
        One dict a step, plain numbers, ready for JSON.

    Raises:
        ValueError: If there is less than one bin, or probabilities and labels do not fit each other.

    Example:
        >>> reliability_bins([[0.4, 0.6], [0.1, 0.9]], [1, 0], bins=2)[1]
        {'lower': 0.5, 'upper': 1.0, 'count': 2, 'confidence': 0.75, 'accuracy': 0.5}
    """
    values, numbers = check_predictions(probabilities, labels)
    confidence = values.max(axis=1)
    correct = values.argmax(axis=1) == numbers
    edges, places = _bins_of(confidence, bins)
    result: list[ReliabilityBin] = []
    for place in range(bins):
        inside = places == place
        count = int(inside.sum())
        result.append(
            {
                "lower": float(edges[place]),
                "upper": float(edges[place + 1]),
                "count": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": float(correct[inside].mean()) if count else None,
            }
        )
    return result


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal-width bins (Guo et al. 2017, equation 3).

    Returns:
        In [0, 1]; 0 is perfect. Few scans make it look worse than it is: compare like with like.

    Raises:
        ValueError: As :func:`reliability_bins`.

    Example:
        >>> round(expected_calibration_error([[0.4, 0.6], [0.1, 0.9]], [1, 0], bins=2), 3)
        0.25
    """
    values, numbers = check_predictions(probabilities, labels)
    return float(weighted_calibration_error(values, numbers, np.ones((1, len(numbers))), bins)[0])


def weighted_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """The expected calibration error where scans count by weights.

    Args:
        probabilities: Shape ``(n, k)``.
        labels: Shape ``(n,)``.
        weights: Of the scans, shape ``(r, n)``: r times, each with weights of its own.
        bins: Number of steps between 0 and 1, at least 1.

    Returns:
        Shape ``(r,)``.

    Example:
        >>> weighted_calibration_error(np.array([[0.25, 0.75]]), np.array([1]), np.ones((1, 1)), bins=15)
        array([0.25])
    """
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    _, places = _bins_of(confidence, bins)
    of_bin = (places[:, None] == np.arange(bins)) * gaps[:, None]
    return np.asarray(np.abs(weights @ of_bin).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)


def _bins_of(confidence: NDArray[np.float64], bins: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges of the steps of confidence, and in which ``(lower, upper]`` each confidence lies."""
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got {bins}.")
    edges = np.linspace(0.0, 1.0, bins + 1)
    return edges, np.searchsorted(edges, confidence, side="left") - 1
