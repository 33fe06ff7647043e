"""How far a metric would have come out otherwise with other test scans: intervals by bootstrap.

Near copies of a scan are right or wrong together, so what is drawn with replacement are duplicate groups, not
scans (Field and Welsh, "Bootstrapping clustered data", JRSS B 2007): scans drawn one by one would promise
more than the test split can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brain_mri.evaluation.calibration import check_predictions
from brain_mri.evaluation.metrics import weighted_metrics

_AT_ONCE = 2_000_000  # weights that are held


def bootstrap_intervals(  # noqa: PLR0917 - scans in three columns, and how
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike,
    classes: Sequence[str],
    seed: int,
    replicates: int = 2000,
    level: float = 0.95,
    bins: int = 15,
) -> dict[str, tuple[float, float] | None]:
    """Return an interval for every metric of :func:`brain_mri.evaluation.metrics.compute_metrics`.

    The interval is that of percentiles (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13). Where a share of scans came out as 1, or as 0, no draw can show another, and the exact
    interval of a share takes its place (Clopper and Pearson, 1934), its trials being the groups: with 100
    groups, all right, "between 0.964 and 1".

    Args:
        labels: Class indices, shape ``(n,)``.
        probabilities: Shape ``(n, k)``, rows sum to 1.
        groups: Duplicate group of each scan, shape ``(n,)``, of any type that can be compared.
        classes: The k class keys in class order.
        seed: Decides about the draws.
        replicates: Number of draws.
        level: Share of the intervals that should hold the true value, in (0, 1).
        bins: Steps of confidence for the calibration error.

    Returns:
        By name of the metric (lower end, upper end); None where the metric has no value, has none in more
        than one draw of ten, or is no share and has the same one in all draws, so that they say nothing.

    Raises:
        ValueError: If the columns do not fit each other, or the level is no share.

    Example:
        >>> groups = np.arange(100) // 2
        >>> all_right = bootstrap_intervals([0, 1] * 50, [[0.9, 0.1], [0.1, 0.9]] * 50, groups, "ab", seed=1)
        >>> all_right["accuracy"]
        (0.928..., 1.0)
    """
    values, numbers = check_predictions(probabilities, labels)
    members = np.asarray(groups)
    if members.shape != numbers.shape:
        raise ValueError(f"Expected a group for each of {len(numbers)} scans, got {members.shape}.")
    if not 0 < level < 1:
        raise ValueError(f"The level is a share in (0, 1), got {level}.")
    _, number_of = np.unique(members, return_inverse=True)
    once = weighted_metrics(values, numbers, np.ones((1, len(numbers))), classes, bins)
    drawn = _draw(values, numbers, number_of, classes, seed, replicates, bins)
    tails = [(1 - level) / 2, (1 + level) / 2]
    shares = _shares(values.argmax(axis=1), numbers, classes)
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, found in drawn.items():
        if np.isnan(once[name][0]) or np.isnan(found).mean() > 0.1:
            intervals[name] = None
            continue
        low, high = np.nanquantile(found, tails)
        intervals[name] = (float(low), float(high)) if low < high or name in shares else None
    for name, (counted, right) in shares.items():
        trials = len(np.unique(number_of[counted]))
        if not trials:
            intervals[name] = None
        elif once[name][0] == 1 and right.all():
            intervals[name] = (float(tails[0] ** (1 / trials)), 1.0)
        elif once[name][0] == 0 and not right.any():
            intervals[name] = (0.0, float(1 - tails[0] ** (1 / trials)))
    return intervals


def bootstrap_difference(  # noqa: PLR0917 - scans in three columns, and how
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    seed: int,
    replicates: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return an interval for the difference of two accuracies on the same scans, second minus first.

    Args:
        first: Whether one classifier was right, bool ``(n,)``.
        second: Likewise of the other.
        groups: Duplicate group of each scan, ``(n,)``.
        seed: Decides about the draws.
        replicates: Number of draws.
        level: Share of the intervals that should hold the true difference, in (0, 1).

    Example:
        >>> low, high = bootstrap_difference([False] * 50, [True] * 50, range(50), seed=1)
        >>> low, high
        (1.0, 1.0)
    """
    gains = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    _, number_of = np.unique(np.asarray(groups), return_inverse=True)
    count = int(number_of.max()) + 1
    sums, sizes = np.bincount(number_of, gains), np.bincount(number_of)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    drawn = (times @ sums) / (times @ sizes)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draw(  # noqa: PLR0917
    values: NDArray[np.float64],
    numbers: NDArray[np.int64],
    number_of: NDArray[np.int64],
    classes: Sequence[str],
    seed: int,
    replicates: int,
    bins: int,
) -> dict[str, NDArray[np.float64]]:
    """Metrics of every draw of as many groups as there are."""
    generator = np.random.default_rng(seed)
    count = int(number_of.max()) + 1
    parts: list[Mapping[str, NDArray[np.float64]]] = []
    step = max(1, _AT_ONCE // len(numbers))
    for start in range(0, replicates, step):
        times = generator.multinomial(count, np.full(count, 1 / count), size=min(step, replicates - start))
        parts.append(weighted_metrics(values, numbers, times[:, number_of].astype(float), classes, bins))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _shares(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, tuple[NDArray[np.bool_], NDArray[Any]]]:
    """Metrics that are shares of scans: which scans are counted, and which of those are right."""
    right = predicted == labels
    shares = {name: (np.ones_like(right), right) for name in ("accuracy", "weighted_recall")}  # which are one
    for index, name in enumerate(classes):
        of_class, called = labels == index, predicted == index
        shares[f"recall_{name}"] = (of_class, right[of_class])
        shares[f"precision_{name}"] = (called, right[called])
        shares[f"specificity_{name}"] = (~of_class, ~called[~of_class])
    return shares
