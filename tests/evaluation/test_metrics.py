from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from brain_mri.evaluation.metrics import (
    classification_report,
    compute_metrics,
    confusion_matrix,
    interpret,
    roc_curves,
    weighted_metrics,
)

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
NAMES = dict(zip(CLASSES, ["Glioma", "Meningioma", "No tumour", "Pituitary"], strict=True))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Labels of uneven classes and probabilities that are often, not always, right."""
    generator = np.random.default_rng(5)
    labels = generator.choice(4, size=300, p=[0.4, 0.3, 0.2, 0.1])
    logits = generator.normal(size=(300, 4))
    logits[np.arange(300), labels] += 1.5
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def test_metrics_equal_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = drawn
    predicted = probabilities.argmax(axis=1)
    ours = compute_metrics(labels, probabilities, CLASSES)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(labels, predicted)
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "macro_precision": reference.precision_score(labels, predicted, average="macro"),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "weighted_precision": reference.precision_score(labels, predicted, average="weighted"),
        "weighted_recall": reference.recall_score(labels, predicted, average="weighted"),
        "roc_auc_macro": reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "log_loss": reference.log_loss(labels, probabilities),
        "brier": reference.brier_score_loss(labels, probabilities, scale_by_half=False),
        **{f"precision_{name}": precision[index] for index, name in enumerate(CLASSES)},
        **{f"recall_{name}": recall[index] for index, name in enumerate(CLASSES)},
        **{
            f"specificity_{name}": reference.recall_score(labels != index, predicted != index)
            for index, name in enumerate(CLASSES)
        },
        **{f"f1_{name}": f1[index] for index, name in enumerate(CLASSES)},
        **{
            f"roc_auc_{name}": reference.roc_auc_score(labels == index, probabilities[:, index])
            for index, name in enumerate(CLASSES)
        },
    }
    assert {key: ours[key] for key in expected} == pytest.approx(expected)
    assert set(ours) - set(expected) == {"ece"}
    assert all(type(value) is float for value in ours.values())


def test_confusion_matrix_equals_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = drawn
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), 4)
    assert (counts == reference.confusion_matrix(labels, probabilities.argmax(axis=1))).all()
    assert counts.dtype == np.int64


def test_a_class_without_test_scans_has_no_score_and_spoils_no_average() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    values = compute_metrics([0, 1], probabilities, ["a", "b", "c"])
    for score in ("recall", "precision", "f1", "roc_auc"):
        assert values[f"{score}_c"] is None
    assert values["macro_f1"] == values["balanced_accuracy"] == values["roc_auc_macro"] == 1.0
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_one_class_alone_has_no_roc_curve() -> None:
    values = compute_metrics([0, 0], [[0.8, 0.2], [0.4, 0.6]], ["a", "b"])
    assert values["roc_auc_macro"] is None
    assert values["recall_a"] == 0.5


def test_a_class_that_is_never_predicted_has_precision_zero() -> None:
    report = classification_report([0, 1], [0, 0], ["a", "b"])
    nothing = {"precision": 0.0, "recall": 0.0, "specificity": 1.0, "f1": 0.0}
    assert report["b"] == {**nothing, "support": 1, "predicted": 0}


def test_weights_are_scans_that_are_there_several_times(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = drawn
    generator = np.random.default_rng(3)
    probabilities = generator.multinomial(16, probabilities) / 16  # so that scores tie
    counts = generator.integers(0, 4, size=(2, len(labels)))
    found = weighted_metrics(probabilities, labels, counts.astype(float), CLASSES)
    for row, times in enumerate(counts):
        repeated = compute_metrics(np.repeat(labels, times), np.repeat(probabilities, times, axis=0), CLASSES)
        assert {name: values[row] for name, values in found.items()} == pytest.approx(repeated)


def test_roc_curves_run_from_corner_to_corner(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    for curve in roc_curves(*drawn, CLASSES).values():
        assert curve is not None
        x, y = curve["false_positive_rate"], curve["true_positive_rate"]
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(y, x) == pytest.approx(curve["auc"])


def test_sentences_say_what_the_matrix_says() -> None:
    counts = [[88, 3, 0, 1], [0, 50, 0, 0], [0, 0, 0, 0], [2, 0, 0, 1]]
    sentences = interpret(counts, NAMES)
    assert sentences["glioma"] == (
        "Of 92 gliomas 88 were recognised; 3 were taken for meningioma; 1 was taken for pituitary tumour. "
        "Of 90 scans called glioma 88 were right."
    )
    assert sentences["meningioma"].startswith("All 50 meningiomas were recognised. Of 53 scans")
    assert sentences["notumor"] == "There were no scans without a tumour among the test scans."
    assert sentences["pituitary"].startswith(
        "Of 3 pituitary tumours 1 was recognised; 2 were taken for glioma."
    )
    assert interpret([[1, 0], [0, 1]], {"x": "Ex", "y": "Why"})["x"].startswith(
        "All 1 scans of “Ex” were recognised"
    )


def test_names_that_do_not_fit_the_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="2 classes, but 3 names"):
        compute_metrics([0], [[0.5, 0.5]], ["a", "b", "c"])
