from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from brain_mri.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def draw_calibrated(seed: int, scans: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that really occur with them."""
    generator = np.random.default_rng(seed)
    probabilities = softmax(generator.normal(scale=2.0, size=(scans, 4)), axis=1)
    labels = (probabilities.cumsum(axis=1) < generator.random((scans, 1))).sum(axis=1)
    return probabilities, np.minimum(labels, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fitting_recovers_a_known_temperature(temperature: float) -> None:
    probabilities, labels = draw_calibrated(seed=1)
    distorted = apply_temperature(probabilities, 1 / temperature)
    fitted = fit_temperature(distorted, labels)
    assert fitted == pytest.approx(temperature, rel=0.04)
    assert expected_calibration_error(apply_temperature(distorted, fitted), labels) < 0.02


def test_temperature_equals_dividing_logits() -> None:
    logits = np.random.default_rng(2).normal(size=(50, 4)) * 3
    expected = softmax(logits / 1.7, axis=1)
    np.testing.assert_allclose(apply_temperature(softmax(logits, axis=1), 1.7), expected, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_temperature_keeps_the_order_of_classes(seed: int, temperature: float) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), size=5)
    scaled = apply_temperature(probabilities, temperature)
    assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    np.testing.assert_allclose(scaled.sum(axis=1), 1)


def test_probabilities_of_exactly_zero_are_no_trouble() -> None:
    certain = np.eye(4)[[0, 1, 2, 3]].astype(np.float32)
    assert np.isfinite(fit_temperature(certain, [0, 1, 2, 0]))
    assert np.isfinite(apply_temperature(certain, 2.0)).all()


@pytest.mark.parametrize("confidence", [0.6, 0.98, 1.0])
def test_faultless_answers_are_believed_as_far_as_their_number_shows(confidence: float) -> None:
    labels = np.arange(400) % 4
    probabilities = np.full((400, 4), (1 - confidence) / 3)
    probabilities[np.arange(400), labels] = confidence
    calibrated = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    assert calibrated.max() == pytest.approx(401 / 402, rel=1e-4)


def test_one_unsure_answer_does_not_make_the_others_certain() -> None:
    """By mean confidence there would be room; by likelihood alone the temperature would fall to 0.05."""
    probabilities = np.full((400, 2), [0.95, 0.05])
    probabilities[0] = [0.5001, 0.4999]
    calibrated = apply_temperature(probabilities, fit_temperature(probabilities, [0] * 400))
    assert 0.99 < calibrated.max() < 401 / 402 + 1e-4


def test_few_faultless_answers_do_not_sharpen() -> None:
    probabilities, _ = draw_calibrated(seed=4, scans=12)
    assert fit_temperature(probabilities, probabilities.argmax(axis=1)) > 0.5


def test_calibration_error_by_hand() -> None:
    # Two bins: (0.5, 0.75] holds 0.6 right and 0.7 wrong, (0.75, 1] holds 0.9 right.
    probabilities = [[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]]
    expected = 2 / 3 * abs(0.5 - 0.65) + 1 / 3 * abs(1.0 - 0.9)
    assert expected_calibration_error(probabilities, [0, 0, 0], bins=4) == pytest.approx(expected)


def test_bins_hold_every_scan_once_and_the_edges() -> None:
    bins = reliability_bins([[0.5, 0.5], [1.0, 0.0], [0.4, 0.6]], [0, 0, 0], bins=2)
    assert [step["count"] for step in bins] == [1, 2]
    assert bins[1]["accuracy"] == pytest.approx(0.5)
    empty = reliability_bins([[1.0, 0.0]], [0], bins=2)[0]
    assert (empty["count"], empty["accuracy"], empty["confidence"]) == (0, None, None)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "one label for each of 1 scans"),
        ([[0.5, 0.5]], [2], "0 … 1"),
        ([[3.0, -2.0]], [0], "Row 0 is no probability distribution"),
        ([[np.nan, 1.0]], [0], "Row 0 is no probability distribution"),
        ([[0.5, 0.5]], [0.0], "class indices"),
        ([0.5, 0.5], [0], "shape"),
    ],
)
def test_what_are_no_predictions_is_refused(probabilities: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(probabilities, labels)


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        apply_temperature([[0.5, 0.5]], 0.0)
    with pytest.raises(ValueError, match="bin"):
        reliability_bins([[0.5, 0.5]], [0], bins=0)
