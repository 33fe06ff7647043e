"""How good a classifier's predictions are, in plain numbers and in sentences.

The values equal scikit-learn's (https://scikit-learn.org/stable/modules/model_evaluation.html). One rule is
ours: a class without test scans has no recall, precision, F1 or AUC (None, not 0), and averages over classes
leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sklearn_metrics

from brain_mri.evaluation.calibration import brier_score, check_predictions, expected_calibration_error

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
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``weighted_f1``, ``weighted_precision``,
        ``weighted_recall``, ``roc_auc_macro``, ``log_loss`` (natural logarithm), ``ece``, ``brier``, and for
        every class ``recall_<class>``, ``precision_<class>``, ``f1_<class>``, ``roc_auc_<class>``.

    Raises:
        ValueError: If labels, probabilities and classes do not fit each other.

    Example:
        >>> compute_metrics([0, 1], [[0.9, 0.1], [0.6, 0.4]], ["glioma", "notumor"])["accuracy"]
        0.5
    """
    values, numbers = _checked(labels, probabilities, classes)
    report = classification_report(numbers, values.argmax(axis=1), classes)
    curves = roc_curves(numbers, values, classes)
    areas = [curve["auc"] for curve in curves.values() if curve]
    picked = np.clip(values[np.arange(len(numbers)), numbers], np.finfo(np.float64).eps, 1.0)
    result: dict[str, float | None] = {
        "accuracy": float((values.argmax(axis=1) == numbers).mean()),
        "balanced_accuracy": _average(report, "recall"),
        "macro_f1": _average(report, "f1"),
        "weighted_f1": _average(report, "f1", weighted=True),
        "weighted_precision": _average(report, "precision", weighted=True),
        "weighted_recall": _average(report, "recall", weighted=True),
        "roc_auc_macro": float(np.mean(areas)) if areas else None,
        "log_loss": float(-np.log(picked).mean()),
        "ece": expected_calibration_error(values, numbers, bins),
        "brier": brier_score(values, numbers),
    }
    for name in classes:
        curve = curves[name]
        result[f"recall_{name}"] = report[name]["recall"]
        result[f"precision_{name}"] = report[name]["precision"]
        result[f"f1_{name}"] = report[name]["f1"]
        result[f"roc_auc_{name}"] = curve["auc"] if curve else None
    return result


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
    """Return precision, recall, F1 and counts of every class.

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
        result[name] = {
            "precision": (right / called if called else 0.0) if support else None,
            "recall": right / support if support else None,
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


def _average(
    report: Mapping[str, ClassScores], score: Literal["precision", "recall", "f1"], weighted: bool = False
) -> float:
    """Mean of a score over the classes that have test scans, plain or weighted by their number."""
    present = [scores for scores in report.values() if scores["support"]]
    weights = [scores["support"] if weighted else 1 for scores in present]
    return float(np.average(np.array([scores[score] for scores in present]), weights=weights))


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, numbers = check_predictions(probabilities, labels)
    if values.shape[1] != len(classes):
        raise ValueError(
            f"Got probabilities for {values.shape[1]} classes, but {len(classes)} names: {classes}."
        )
    return values, numbers
