from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from brain_mri.evaluation.bootstrap import bootstrap_difference, bootstrap_intervals
from brain_mri.evaluation.metrics import compute_metrics

CLASSES = ["a", "b", "c"]


def simulated(
    seed: int, groups: int = 120, size: int = 3
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Scans in groups that are right (9 groups of 10) or wrong together."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, groups)
    wrong = generator.random(groups) < 0.1
    answer = np.where(wrong, (label + 1) % 3, label)
    probabilities = np.full((groups, 3), 0.1)
    probabilities[np.arange(groups), answer] = 0.8
    member = np.repeat(np.arange(groups), size)
    return label[member], probabilities[member], member


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    """300 test splits of 120 groups: of 95 % intervals, 285 should hold 0.9, give or take 4 a deviation."""
    held = {True: 0, False: 0}
    for seed in range(300):
        labels, probabilities, groups = simulated(seed)
        for grouped in held:
            members = groups if grouped else np.arange(len(labels))
            low, high = bootstrap_intervals(  # type: ignore[misc]  # there is one
                labels, probabilities, members, CLASSES, seed, replicates=200
            )["accuracy"]
            held[grouped] += low <= 0.9 <= high
    assert held[True] >= 270
    assert held[False] < 250  # drawn scan by scan, they would promise too much


def test_intervals_hold_every_metric() -> None:
    labels, probabilities, groups = simulated(7)
    intervals = bootstrap_intervals(labels, probabilities, groups, CLASSES, seed=1)
    metrics = compute_metrics(labels, probabilities, CLASSES)
    assert list(intervals) == list(metrics)
    for name, interval in intervals.items():
        assert interval is not None
        assert interval[0] < metrics[name] < interval[1], name  # type: ignore[operator]


def test_the_same_seed_draws_the_same() -> None:
    first, again = (bootstrap_intervals(*simulated(3), CLASSES, seed=5, replicates=50) for _ in range(2))
    other = bootstrap_intervals(*simulated(3), CLASSES, seed=6, replicates=50)
    assert first == again != other


def test_where_all_are_right_the_interval_is_that_of_a_share() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    probabilities = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    intervals = bootstrap_intervals(labels, probabilities, [0, 0, 1, 2, 3, 4], ["a", "b"], seed=1)
    assert intervals["accuracy"] == (pytest.approx(0.025 ** (1 / 5)), 1.0)  # of five groups
    assert intervals["recall_b"] == (pytest.approx(0.025 ** (1 / 4)), 1.0)
    assert intervals["recall_a"] == (pytest.approx(0.025), 1.0)  # of one group
    assert intervals["weighted_recall"] == intervals["accuracy"]  # it is the same number
    assert intervals["balanced_accuracy"] is intervals["f1_a"] is intervals["roc_auc_macro"] is None


def test_where_none_is_right_the_interval_is_that_of_a_share_too() -> None:
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.tile([0.1, 0.9], (40, 1))
    intervals = bootstrap_intervals(labels, probabilities, np.arange(40), ["a", "b"], seed=1)
    assert intervals["recall_a"] == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert intervals["precision_a"] is None  # nothing was called so
    low, high = intervals["accuracy"] or (0, 0)
    assert low < 0.5 < high


def test_a_class_that_is_not_there_has_no_interval() -> None:
    labels, probabilities, groups = simulated(2)
    kept = labels != 2
    intervals = bootstrap_intervals(labels[kept], probabilities[kept], groups[kept], CLASSES, seed=1)
    assert intervals["recall_c"] is None
    assert intervals["recall_a"] is not None


def test_the_interval_of_a_difference_is_over_groups() -> None:
    generator = np.random.default_rng(9)
    groups = np.repeat(np.arange(80), 3)
    first = np.repeat(generator.random(80) < 0.8, 3)
    second = np.repeat(generator.random(80) < 0.9, 3)
    low, high = bootstrap_difference(first, second, groups, seed=1)
    gains = (second.astype(float) - first)[::3]
    error = gains.std(ddof=1) / np.sqrt(80)
    assert low == pytest.approx(gains.mean() - 1.96 * error, abs=0.01)
    assert high == pytest.approx(gains.mean() + 1.96 * error, abs=0.01)
    alone = bootstrap_difference(first, second, np.arange(240), seed=1)
    assert alone[1] - alone[0] < 0.7 * (high - low)  # scan by scan, it would promise too much


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a group for each of 2 scans"):
        bootstrap_intervals([0, 1], [[0.5, 0.5]] * 2, [1], ["a", "b"], seed=1)
    with pytest.raises(ValueError, match="level is a share"):
        bootstrap_intervals([0, 1], [[0.5, 0.5]] * 2, [1, 2], ["a", "b"], seed=1, level=95)
