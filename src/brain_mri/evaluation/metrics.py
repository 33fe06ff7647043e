"""How good a classifier's predictions are, in plain numbers and in sentences.

The values equal scikit-learn's (https://scikit-learn.org/stable/modules/model_evaluation.html). One rule is
ours: a class without test scans has no recall, precision, F1 or AUC (None, not 0), and averages over classes
leave it out. They are computed for many weightings of the scans at once, which is what a bootstrap asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sklearn_metrics

from brain_mri.evaluation.calibration import check_predictions, weighted_calibration_error

# How sentences speak of the usual classes: (several of them, what a scan is taken for).
_WORDS = {
    "glioma": ("gliomas", "glioma"),
    "meningioma": ("meningiomas", "meningioma"),
    "notumor": ("scans without a tumour", "“no tumour”"),
    "pituitary": ("pituitary tumours", "pituitary tumour"),
}


class ClassScores(TypedDict):
    """One class against all others; the scores are None where it has no test scans."""

    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    support: int
    predicted: int


class RocCurve(TypedDict):
    """A receiver operating characteristic from (0, 0) to (1, 1), and the area under it."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    auc: float


def compute_metrics(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str], bins: int = 15
) -> dict[str, float | None]:
    """Return the flat table of metrics.

    Args:
        labels: Class indices, shape ``(n,)``.
        probabilities: Shape ``(n, k)``, rows sum to 1.
        classes: The k class keys in class order.
        bins: Steps of confidence for the calibration error.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``macro_precision``, ``macro_f1``, ``weighted_precision``,
        ``weighted_recall``, ``weighted_f1``, ``roc_auc_macro``, ``log_loss`` (natural logarithm), ``ece``,
        ``brier`` (squared distance from the truth, summed over classes: Brier 1950; 2 is the worst), and for
        every class ``recall_<class>``, ``precision_<class>``, ``specificity_<class>``, ``f1_<class>``,
        ``roc_auc_<class>`` (the class against all others).

    Raises:
        ValueError: If labels, probabilities and classes do not fit each other.

    Example:
        >>> compute_metrics([0, 1], [[0.9, 0.1], [0.6, 0.4]], ["glioma", "notumor"])["accuracy"]
        0.5
    """
    values, numbers = _checked(labels, probabilities, classes)
    found = weighted_metrics(values, numbers, np.ones((1, len(numbers))), classes, bins)
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in found.items()}


def weighted_metrics(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    classes: Sequence[str],
    bins: int = 15,
) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of :func:`compute_metrics` where scans count by weights.

    Args:
        probabilities: Shape ``(n, k)``, as :func:`check_predictions` returns them.
        labels: Class indices, shape ``(n,)``.
        weights: Of the scans, shape ``(r, n)``: r times, each with weights of its own, 0 or more.
        classes: The k class keys in class order.
        bins: Steps of confidence for the calibration error.

    Returns:
        By name the values, shape ``(r,)``; NaN where there is none.

    Example:
        >>> twice = np.array([[1.0, 1.0], [3.0, 1.0]])  # the second time the first scan counts three times
        >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> weighted_metrics(probabilities, np.array([0, 1]), twice, ["a", "b"])["accuracy"]
        array([0.5 , 0.75])
    """
    count = len(classes)
    predicted, all_weight = probabilities.argmax(axis=1), weights.sum(axis=1)
    cells = np.eye(count**2)[labels * count + predicted]
    confusion = (weights @ cells).reshape(-1, count, count)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    others = all_weight[:, None] - support
    there = support > 0
    recall = _divided(right, support)
    precision = np.where(there, np.nan_to_num(_divided(right, called)), np.nan)
    f1 = np.where(there, _divided(2 * right, support + called), np.nan)
    specificity = _divided(others - called + right, others)
    areas = np.stack(
        [_area(probabilities[:, index], labels == index, weights) for index in range(count)], axis=1
    )
    picked = np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1.0)
    squares = ((probabilities - np.eye(count)[labels]) ** 2).sum(axis=1)
    result = {
        "accuracy": right.sum(axis=1) / all_weight,
        "balanced_accuracy": _mean(recall),
        "macro_precision": _mean(precision),
        "macro_f1": _mean(f1),
        "weighted_precision": _mean(precision, support),
        "weighted_recall": _mean(recall, support),
        "weighted_f1": _mean(f1, support),
        "roc_auc_macro": _mean(areas),
        "log_loss": weights @ -np.log(picked) / all_weight,
        "ece": weighted_calibration_error(probabilities, labels, weights, bins),
        "brier": weights @ squares / all_weight,
    }
    per_class = {
        "recall": recall, "precision": precision, "specificity": specificity, "f1": f1, "roc_auc": areas,
    }  # fmt: skip
    for index, key in enumerate(classes):
        result |= {f"{name}_{key}": score[:, index] for name, score in per_class.items()}
    return result


def _area(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under the ROC curve as the chance that a positive scores higher than a negative, ties half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0))  # where a run of equal scores begins
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _divided((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _divided(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quotient, NaN where there is nothing to divide by."""
    empty = np.full(numerator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator > 0))


def _mean(scores: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Mean over the classes that have a score, plain or weighted."""
    there = ~np.isnan(scores)
    shares = there * (1.0 if weights is None else weights)
    return _divided((np.nan_to_num(scores) * shares).sum(axis=1), shares.sum(axis=1))


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count the scans of each true class (rows) by predicted class (columns).

    Returns:
        int64 of shape ``(classes, classes)``.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predicted)), 1)
    return counts


def classification_report(
    labels: ArrayLike, predicted: ArrayLike, classes: Sequence[str]
) -> dict[str, ClassScores]:
    """Return precision, recall, specificity, F1 and counts of every class.

    A class that is never predicted has precision 0, as in scikit-learn.

    Example:
        >>> classification_report([0, 0, 1], [0, 1, 1], ["glioma", "notumor"])["glioma"]["recall"]
        0.5
    """
    counts = confusion_matrix(labels, predicted, len(classes))
    result: dict[str, ClassScores] = {}
    for index, name in enumerate(classes):
        right = int(counts[index, index])
        support, called = int(counts[index].sum()), int(counts[:, index].sum())
        others = int(counts.sum()) - support
        result[name] = {
            "precision": (right / called if called else 0.0) if support else None,
            "recall": right / support if support else None,
            "specificity": (others - called + right) / others if others else None,
            "f1": 2 * right / (support + called) if support else None,
            "support": support,
            "predicted": called,
        }
    return result


def roc_curves(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]
) -> dict[str, RocCurve | None]:
    """Draw each class against all others (Fawcett, "An introduction to ROC analysis", 2006).

    Returns:
        A curve per class, without points on straight lines; None where the test scans are all or none of it.

    Raises:
        ValueError: If labels, probabilities and classes do not fit each other.

    Example:
        >>> roc_curves([0, 1], [[0.9, 0.1], [0.6, 0.4]], ["glioma", "notumor"])["glioma"]["auc"]
        1.0
    """
    values, numbers = _checked(labels, probabilities, classes)
    result: dict[str, RocCurve | None] = {}
    for index, name in enumerate(classes):
        truth = numbers == index
        if truth.all() or not truth.any():
            result[name] = None
            continue
        false_positive, true_positive, _ = sklearn_metrics.roc_curve(truth, values[:, index])
        result[name] = {
            "false_positive_rate": false_positive.tolist(),
            "true_positive_rate": true_positive.tolist(),
            "auc": float(sklearn_metrics.roc_auc_score(truth, values[:, index])),
        }
    return result


def interpret(confusion: ArrayLike, names: Mapping[str, str]) -> dict[str, str]:
    """Say in words what the confusion matrix means for each class.

    Args:
        confusion: Counts, true classes in rows, shape ``(k, k)``.
        names: Display name of each class key, in class order.

    Returns:
        One or two sentences per class key.

    Example:
        >>> names = {"glioma": "Glioma", "meningioma": "Meningioma"}
        >>> interpret([[88, 4], [0, 90]], names)["meningioma"]
        'All 90 meningiomas were recognised. Of 94 scans called meningioma 90 were right.'
    """
    counts = np.asarray(confusion)
    words = [_WORDS.get(key, (f"scans of “{name}”", f"“{name}”")) for key, name in names.items()]
    sentences = {}
    for index, key in enumerate(names):
        several, one = words[index]
        support, right, called = counts[index].sum(), counts[index, index], counts[:, index].sum()
        if not support:
            sentences[key] = f"There were no {several} among the test scans."
            continue
        if right == support:
            parts = [f"All {support} {several} were recognised"]
        else:
            parts = [f"Of {support} {several} {_were(right)} recognised"]
        for other in np.argsort(-counts[index], kind="stable"):
            if other != index and counts[index, other]:
                parts.append(f"{_were(counts[index, other])} taken for {words[other][1]}")
        sentences[key] = "; ".join(parts) + "."
        if called:
            sentences[key] += f" Of {called} scans called {one} {_were(right)} right."
    return sentences


def _were(count: int) -> str:
    return f"{count} was" if count == 1 else f"{count} were"


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, numbers = check_predictions(probabilities, labels)
    if values.shape[1] != len(classes):
        raise ValueError(
            f"Got probabilities for {values.shape[1]} classes, but {len(classes)} names: {classes}."
        )
    return values, numbers
