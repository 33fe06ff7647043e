from __future__ import annotations

import numpy as np
import pytest

from brain_mri.evaluation.selective import abstention_threshold, coverage_curve


def test_abstaining_reaches_the_target_with_as_many_answers_as_possible() -> None:
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    probabilities = np.column_stack([confidence, 1 - confidence])
    labels = np.array([0, 0, 1, 0, 1])
    assert abstention_threshold(probabilities, labels, 0.99) == pytest.approx(0.9)
    assert abstention_threshold(probabilities, labels, 0.75) == pytest.approx(0.7)
    assert abstention_threshold(probabilities, labels, 0.6) == 0.0


def test_abstaining_does_its_best_where_the_target_is_out_of_reach() -> None:
    confidence = np.array([0.9, 0.8, 0.7])
    probabilities = np.column_stack([confidence, 1 - confidence])
    assert abstention_threshold(probabilities, [1, 0, 1], 0.99) == pytest.approx(0.8)


def test_equal_confidences_are_answered_or_refused_together() -> None:
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]]
    assert abstention_threshold(probabilities, [0, 0, 1, 1], 0.9) == 0.9
    assert abstention_threshold(probabilities, [0, 0, 1, 1], 0.6) == 0.8


def test_the_threshold_is_where_the_curve_reaches_the_target() -> None:
    generator = np.random.default_rng(11)
    confidence = generator.uniform(0.5, 1, 2000)
    probabilities = np.column_stack([confidence, 1 - confidence])
    labels = (generator.random(2000) > confidence).astype(int)
    threshold = abstention_threshold(probabilities, labels, 0.9)
    curve = coverage_curve(probabilities, labels)
    place = curve["threshold"].index(threshold)
    answered = confidence >= threshold
    assert curve["coverage"][place] == pytest.approx(answered.mean())
    assert curve["accuracy"][place] == pytest.approx((labels[answered] == 0).mean())
    assert curve["accuracy"][place] >= 0.9 > curve["accuracy"][place + 1]


def test_the_area_is_the_mean_error_over_coverages() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    curve = coverage_curve(np.column_stack([confidence, 1 - confidence]), [0, 1, 0, 0])
    assert curve["accuracy"] == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4])
    assert curve["area_above"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_a_target_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="target accuracy"):
        abstention_threshold([[0.5, 0.5]], [0], 1.2)
