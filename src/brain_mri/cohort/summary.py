"""Counts and distributions of a cohort as plain dictionaries, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

_SIZES_SHOWN = 12


def class_counts(
    labels: Iterable[str], splits: Iterable[str | None], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Scans per class, in each split and together.

    Args:
        labels: Class name per row.
        splits: "train", "validation", "test" per row; rows with None or "" count in "all" only.
        classes: Class names in their order.

    Example:
        >>> class_counts(["a", "b"], ["train", "test"], ["a", "b"])["train"]
        {'a': 1, 'b': 0}
    """
    pairs = list(zip(labels, splits, strict=True))
    counts = Counter(pairs)
    total = Counter(label for label, _ in pairs)
    table = {
        split: {name: counts[name, split] for name in classes} for split in ("train", "validation", "test")
    }
    return {**table, "all": {name: total[name] for name in classes}}


def class_weights(labels: Iterable[str], classes: Sequence[str]) -> dict[str, float]:
    """Weight per class that makes all classes count alike: rows / (classes × rows of the class).

    The definition is scikit-learn's `class_weight="balanced"` (after G. King, L. Zeng, "Logistic Regression
    in Rare Events Data", Political Analysis, 2001). Only classes that occur count; one without rows gets 0.

    Example:
        >>> class_weights(["a", "a", "a", "b"], ["a", "b"])
        {'a': 0.6666666666666666, 'b': 2.0}
    """
    counts = Counter(labels)
    present = sum(counts[name] > 0 for name in classes)
    rows = sum(counts[name] for name in classes)
    return {name: rows / (present * counts[name]) if counts[name] else 0.0 for name in classes}


def status_counts(status: Iterable[str], reason: Iterable[str]) -> dict[str, dict[str, int]]:
    """Rows by status and, where one is given, by reason; most frequent first."""
    return {"status": _frequencies(status), "reason": _frequencies(value for value in reason if value)}


def image_properties(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many scans have which size, mode, format and bit depth; most frequent first.

    Args:
        manifest: Rows with `width`, `height` (pixels), `mode`, `format`, `bit_depth`.

    Returns:
        Counts under "size" (as "512×512"; the 12 most frequent, the rest as "other"), "mode", "format" and
        "bit_depth".
    """
    widths, heights = manifest["width"].astype(int), manifest["height"].astype(int)
    sizes = _frequencies(f"{width}×{height}" for width, height in zip(widths, heights, strict=True))
    shown = dict(list(sizes.items())[:_SIZES_SHOWN])
    if len(sizes) > _SIZES_SHOWN:
        shown["other"] = sum(sizes.values()) - sum(shown.values())
    return {
        "size": shown,
        "mode": _frequencies(manifest["mode"]),
        "format": _frequencies(manifest["format"]),
        "bit_depth": _frequencies(str(int(depth)) for depth in manifest["bit_depth"]),
    }


def brightness_histogram(
    mean_intensity: Iterable[float], labels: Iterable[str], classes: Sequence[str], bins: int = 32
) -> dict[str, object]:
    """Distribution of the scans' mean grey value, for each class.

    Args:
        mean_intensity: Mean grey value per scan, 0 to 255.
        labels: Class name per scan.
        classes: Class names in their order.
        bins: Number of equal bins from 0 to 255.

    Returns:
        "edges" (bins + 1 grey values), "counts" (class to list of bins), "mean" (class to grey value, None
        where the class has no scans).
    """
    values, names = np.array(list(mean_intensity), dtype=float), np.array(list(labels), dtype=object)
    edges = np.linspace(0, 255, bins + 1)
    by_class = {name: values[names == name] for name in classes}
    return {
        "edges": edges.tolist(),
        "counts": {name: np.histogram(some, edges)[0].tolist() for name, some in by_class.items()},
        "mean": {name: float(some.mean()) if len(some) else None for name, some in by_class.items()},
    }


def summarise_cohort(manifest: pd.DataFrame, classes: Sequence[str]) -> dict[str, object]:
    """Everything above for one manifest; all but the status counts over accepted rows only.

    Args:
        manifest: The manifest's rows, with `label`, `split`, `status`, `reason`, `mean_intensity` and the
            columns of `image_properties`.
        classes: Class names in their order.

    Returns:
        "status", "reason", "class_counts", "class_weights" (of the training split), "size", "mode", "format",
        "bit_depth", "brightness": plain Python types, ready for JSON.
    """
    accepted = manifest[manifest["status"] == "accepted"]
    training = accepted.loc[accepted["split"] == "train", "label"]
    return {
        **status_counts(manifest["status"], manifest["reason"]),
        "class_counts": class_counts(accepted["label"], accepted["split"], classes),
        "class_weights": class_weights(training, classes),
        **image_properties(accepted),
        "brightness": brightness_histogram(accepted["mean_intensity"], accepted["label"], classes),
    }


def _frequencies(values: Iterable[str]) -> dict[str, int]:
    """Counts of each value, most frequent first, equal counts by name."""
    return dict(sorted(Counter(map(str, values)).items(), key=lambda item: (-item[1], item[0])))
