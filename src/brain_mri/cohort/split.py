"""Train, validation and test splits that keep duplicate groups together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from brain_mri.cohort.groups import conflicting_groups

SPLITS = ("train", "validation", "test")
DEFAULT_RATIOS = (0.72, 0.14, 0.14)


class SplitError(ValueError):
    """The scans cannot be split as asked; the message says how to mend it."""


@dataclass(frozen=True, eq=False)
class OfficialSplits:
    """Splits that respect an official test half.

    Attributes:
        splits: "train", "validation", "test" per row, or "" for a row taken out because it leaks.
        leaked: bool per row, True where `splits` is "".
    """

    splits: npt.NDArray[np.object_]
    leaked: npt.NDArray[np.bool_]


def assign_splits(
    labels: Iterable[str],
    groups: npt.ArrayLike,
    keys: Iterable[str],
    *,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    seed: int = 0,
    filled: Mapping[str, Sequence[int]] | None = None,
) -> npt.NDArray[np.object_]:
    """Give every row a split: stratified by class, a duplicate group never divided.

    In each class the groups, large ones first and equal ones in an order drawn from the seed, go one after
    the other to the split that is filled least for its share (Webster's method of apportioning seats, with
    groups for seats). So large groups, too, are spread in proportion, and a split misses its share of a class
    by no more than twice the largest group, in practice by less than one scan.

    Args:
        labels: Class name per row.
        groups: Group index per row, 0 or more; one label in each group.
        keys: A stable name per row (its scan id). Rows may come in any order: only keys decide.
        ratios: Shares of train, validation and test; positive, with sum 1.
        seed: Another seed, another draw.
        filled: Rows that train, validation and test hold already, for each class that has any: the shares are
            those of these rows and the given ones together.

    Returns:
        "train", "validation" or "test" per row, object array; every class in every split.

    Raises:
        SplitError: Ratios that are none, a row without group, a group with two labels, or a class of fewer
            groups than splits that are still without it (three, unless `filled` says otherwise).

    Example:
        >>> sorted(assign_splits(["a"] * 6, range(6), "uvwxyz", ratios=(0.4, 0.3, 0.3), seed=1))
        ['test', 'test', 'train', 'train', 'validation', 'validation']
    """
    check_ratios(ratios)
    rows = _rows(labels, groups, keys)
    return _distribute(rows, SPLITS, ratios, seed, filled or {})


def assign_official_splits(
    labels: Iterable[str],
    groups: npt.ArrayLike,
    official: Iterable[str | None],
    keys: Iterable[str],
    *,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    seed: int = 0,
) -> OfficialSplits:
    """Keep the official test half and cut validation from what remains of training.

    A training row whose group also has test rows would leak: it is taken out of training, gets the split ""
    and is marked in `leaked`, so that the caller can record and count it. Where the source has validation
    rows of its own they stay validation, less those that share a group with test, and training loses what it
    shares with them. Otherwise validation is cut from training in the proportion of the first two ratios, as
    `assign_splits` does.

    Args:
        labels: Class name per row.
        groups: Group index per row, 0 or more; one label in each group.
        official: "train", "validation", "test" or None per row; None counts as training.
        keys: A stable name per row (its scan id).
        ratios: Shares of train, validation and test; the last one plays no part here.
        seed: Another seed, another draw.

    Raises:
        SplitError: As `assign_splits`; no official test rows; a class that ends up missing from a split.
    """
    check_ratios(ratios)
    rows = _rows(labels, groups, keys)
    rows["official"] = _same_length([value or "train" for value in official], len(rows), "official split")
    unknown = sorted(set(rows["official"]) - set(SPLITS))
    if unknown:
        raise SplitError(f"Expected official splits {', '.join(SPLITS)} or None, got {unknown}.")
    _require_all_classes(rows, rows["official"], ("test",))

    splits = rows["official"].to_numpy(dtype=object, copy=True)
    # The half that comes later here is the one that gives way.
    for kept, yielding in (("test", ("validation", "train")), ("validation", ("train",))):
        shared = rows["group"].isin(rows.loc[splits == kept, "group"]).to_numpy()
        splits[shared & np.isin(splits, yielding)] = ""
    training = splits == "train"
    if not (splits == "validation").any():
        splits[training] = _distribute(rows[training], SPLITS[:2], ratios[:2], seed, {})
    _require_all_classes(rows, splits, SPLITS)
    return OfficialSplits(splits=splits, leaked=splits == "")


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse ratios that are not three positive numbers with sum 1.

    Raises:
        SplitError: Naming what was given.
    """
    if len(ratios) != 3 or not all(ratio > 0 for ratio in ratios) or abs(sum(ratios) - 1) > 1e-6:
        raise SplitError(
            "Split ratios must be three positive numbers (train, validation, test) with sum 1, "
            f"got {list(ratios)}. The default is {list(DEFAULT_RATIOS)}."
        )


def _same_length(column: list[str], length: int, name: str) -> list[str]:
    if len(column) != length:
        raise SplitError(f"Expected a {name} for each of {length} rows, got {len(column)}.")
    return column


def _rows(labels: Iterable[str], groups: npt.ArrayLike, keys: Iterable[str]) -> pd.DataFrame:
    """The columns as a checked table with a plain index."""
    label = list(labels)
    rows = pd.DataFrame(
        {
            "label": label,
            "group": _same_length(np.asarray(groups).tolist(), len(label), "group"),
            "key": _same_length(list(keys), len(label), "key"),
        }
    )
    if len(rows) == 0:
        raise SplitError("There are no rows to split. Expected at least three groups of scans in each class.")
    ungrouped = int((rows["group"] < 0).sum())
    if ungrouped:
        raise SplitError(f"{ungrouped} rows have no duplicate group. Split only rows that were accepted.")
    mixed = conflicting_groups(label, rows["group"])
    if len(mixed):
        example = sorted(set(rows.loc[rows["group"] == mixed[0], "label"]))
        raise SplitError(
            f"{len(mixed)} groups hold more than one label, for instance group {mixed[0]} with "
            f"{', '.join(example)}. Quarantine such groups before splitting."
        )
    return rows


def _distribute(
    rows: pd.DataFrame,
    splits: Sequence[str],
    ratios: Sequence[float],
    seed: int,
    filled: Mapping[str, Sequence[int]],
) -> npt.NDArray[np.object_]:
    """Split per row, for rows as `_rows` makes them."""
    table = rows.sort_values("key").drop_duplicates("group").set_index("group")
    table["size"] = rows["group"].value_counts()
    table["draw"] = [hashlib.sha256(f"{seed}:{key}".encode()).hexdigest() for key in table["key"]]
    table = table.sort_values(["size", "draw", "key"], ascending=[False, True, True])
    split_of_group: dict[int, str] = {}
    for label, members in table.groupby("label", sort=True):
        before = filled.get(str(label), [0] * len(splits))
        empty = [split for split, rows_there in zip(splits, before, strict=True) if not rows_there]
        if len(members) < len(empty):
            raise SplitError(
                f"Class {label!r} has {len(members)} groups of scans ({members['size'].sum()} files); "
                f"{', '.join(empty)} need one each. Add scans of this class, or leave the class out of the "
                "source and of ingestion.classes."
            )
        chosen = _fill(members["size"].tolist(), ratios, before)
        split_of_group.update(zip(members.index, (splits[choice] for choice in chosen), strict=True))
    return rows["group"].map(split_of_group).to_numpy(dtype=object)


def _fill(sizes: Sequence[int], ratios: Sequence[float], before: Sequence[int]) -> list[int]:
    """Index of the split for each group of one class, in the given order; `before`: rows already there."""
    filled = list(before)
    chosen: list[int] = []
    for place, size in enumerate(sizes):
        empty = [split for split in range(len(ratios)) if filled[split] == 0]
        # The last groups are kept for splits that would otherwise miss the class.
        candidates = empty if len(sizes) - place <= len(empty) else range(len(ratios))
        split = min(candidates, key=lambda index: (filled[index] + size / 2) / ratios[index])
        filled[split] += size
        chosen.append(split)
    return chosen


def _require_all_classes(rows: pd.DataFrame, splits: npt.ArrayLike, expected: Sequence[str]) -> None:
    """Refuse official halves in which a class is missing."""
    classes = sorted(set(rows["label"]))
    present = set(zip(rows["label"], np.asarray(splits), strict=True))
    for split in expected:
        missing = [name for name in classes if (name, split) not in present]
        if missing:
            raise SplitError(
                f"The official splits leave no {split} scans of: {', '.join(missing)}. Expected every class "
                "in every split. Set ingestion.test_split back to its default, which draws from all scans."
            )
