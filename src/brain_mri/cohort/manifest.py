"""The manifest: a row per file of the source, with what was found out and decided about it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from brain_mri.cohort.groups import conflicting_groups, duplicate_groups
from brain_mri.cohort.near import Thumbnails
from brain_mri.cohort.split import SPLITS, assign_official_splits, assign_splits

COLUMNS = (
    "path", "scan_id", "label", "split", "duplicate_group", "patient", "study", "pixel_hash", "dhash",
    "thumbnail", "bytes", "width", "height", "mode", "format", "bit_depth", "mean_intensity", "status",
    "reason",
)  # fmt: skip
"""Columns of the stored manifest."""
ROW_COLUMNS = tuple(name for name in COLUMNS if name != "thumbnail")
"""Columns of the manifest in memory: thumbnails, 4 KiB a row, are looked up where they are needed."""

COPY = "copy_of_another_file"
SHARED_WITH_TEST = "shares_group_with_official_test"
CONFLICT = "two_labels_in_group"
BRIDGE = "bridges_splits"


class TooManyRefusedError(ValueError):
    """So many files were refused that the source itself must be wrong."""


class EmptyClassError(ValueError):
    """A class of the source has no scan that can be used."""


@dataclass(frozen=True)
class SplitRule:
    """How the splits are drawn.

    Attributes:
        test_split: `grouped`, or `official` to keep the source's own test half.
        ratios: Shares of train, validation, test.
        seed: Of the draw.
        mirrored: Whether mirror images of a scan belong to its group.
    """

    test_split: str
    ratios: tuple[float, float, float]
    seed: int
    mirrored: bool = False


def build_manifest(
    files: pd.DataFrame, inspections: pd.DataFrame, rule: SplitRule, thumbnails: Thumbnails
) -> pd.DataFrame:
    """Join what the source says with what inspection found; find copies, refuse conflicts, split.

    Args:
        files: Columns `path`, `label`, `official_split`, `patient`, `study`; a row per file.
        inspections: The fields of `imaging.inspect.Inspection` but `thumbnail`, by `path`.
        rule: How to split.
        thumbnails: Looks up the thumbnails of accepted scans, as for `duplicate_groups`.

    Returns:
        The manifest, columns `ROW_COLUMNS`, sorted by path. `status` is `accepted` (then `split` is set),
        `duplicate` (another file holds the same scan, or, with an official test half, a group that reaches
        into it), or `quarantined`; `reason` says why.
    """
    rows = files.merge(inspections, on="path", validate="one_to_one").sort_values("path", ignore_index=True)
    usable = rows["status"].eq("accepted").to_numpy()
    groups = np.full(len(rows), -1)
    groups[usable] = duplicate_groups(rows[usable], thumbnails, mirrored=rule.mirrored)
    conflict = usable & np.isin(groups, conflicting_groups(rows["label"], groups))
    copies = usable & ~conflict & rows["scan_id"].where(usable, rows["path"]).duplicated().to_numpy()
    rows.loc[conflict, ["status", "reason"]] = ["quarantined", CONFLICT]
    rows.loc[copies, ["status", "reason"]] = ["duplicate", COPY]

    kept = rows["status"].eq("accepted").to_numpy()
    labels, keys = rows.loc[kept, "label"], rows.loc[kept, "scan_id"]
    draw: dict[str, Any] = {"ratios": rule.ratios, "seed": rule.seed}
    rows["split"] = None
    if rule.test_split == "official":
        official = _official_of_scans(rows)[kept]
        result = assign_official_splits(labels, groups[kept], official, keys, **draw)
        leaked = np.flatnonzero(kept)[result.leaked]
        rows.loc[kept, "split"] = result.splits
        rows.loc[leaked, ["status", "reason", "split"]] = ["duplicate", SHARED_WITH_TEST, None]
    else:
        rows.loc[kept, "split"] = assign_splits(labels, groups[kept], keys, **draw)
    rows["duplicate_group"] = group_names(groups, rows["scan_id"])
    return rows[list(ROW_COLUMNS)]


def check_refused_share(manifest_or_inspections: pd.DataFrame, allowed: float) -> None:
    """Stop when too large a share of the files was refused.

    Raises:
        TooManyRefusedError: With the reasons counted.
    """
    refused = manifest_or_inspections[manifest_or_inspections["status"] == "quarantined"]
    total = len(manifest_or_inspections)
    if len(refused) > allowed * total:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(refused["reason"]).most_common())
        examples = ", ".join(refused["path"].head(5))
        raise TooManyRefusedError(
            f"{len(refused)} of {total} files were refused ({len(refused) / total:.0%}; allowed are "
            f"{allowed:.0%}): {reasons}. For instance {examples}. Check that the source is the right folder, "
            "or raise ingestion.max_refused_share."
        )


def check_every_class_is_left(metadata: Mapping[str, Any]) -> None:
    """Stop when every file of a class was refused: a network would get an answer that it never learns.

    Args:
        metadata: As from `describe_splits`.

    Raises:
        EmptyClassError: Naming the classes, and what was refused.
    """
    gone = [name for name in metadata["classes"] if not metadata["counts"]["train"][name]]
    if gone:
        reasons = ", ".join(f"{reason} {count}" for reason, count in metadata["quarantined"].items())
        raise EmptyClassError(
            f"No usable scan is left of: {', '.join(gone)}. Refused were: {reasons or 'none'}. "
            "Mend the files of this class, or leave it out: name the others in ingestion.classes and point "
            "ingestion.source at them."
        )


def check_manifest(manifest: pd.DataFrame) -> pd.DataFrame:
    """The catalog's validator of the manifest: columns, statuses, and no group on two sides of a split.

    Thumbnails may be among the columns, or not.

    Raises:
        pandera.errors.SchemaErrors: Naming every check that failed and examples.
    """
    import pandera.pandas as pa

    accepted = pa.Check(
        lambda table: table["split"].notna() == table["status"].eq("accepted"),
        name="accepted_rows_and_only_they_have_a_split",
    )
    whole = pa.Check(_groups_are_whole, name="no_group_straddles_splits")
    once = pa.Check(
        lambda table: ~table[["scan_id", "status"]].duplicated(keep=False) | table["status"].ne("accepted"),
        name="a_scan_is_accepted_once",
    )
    schema = pa.DataFrameSchema(
        {
            "path": pa.Column(str, unique=True),
            "label": pa.Column(str),
            "split": pa.Column(object, pa.Check.isin(SPLITS), nullable=True),
            "status": pa.Column(str, pa.Check.isin(("accepted", "duplicate", "quarantined"))),
            **{name: pa.Column(required=True, nullable=True) for name in ROW_COLUMNS if name not in _CHECKED},
        },
        checks=[accepted, whole, once],
    )
    return schema.validate(manifest, lazy=True)


_CHECKED = ("path", "label", "split", "status")


def describe_splits(manifest: pd.DataFrame, classes: Sequence[str], rule: SplitRule) -> dict[str, Any]:
    """Counts by class and split, groups, copies and refusals, as JSON-able values.

    Returns:
        `test_split`, `ratios`, `seed`, `classes`, `counts` (split to class to scans), `groups` (`count`,
        `largest`, `with_near_copies`), `duplicates`, `shared_with_official_test`, `quarantined` (reason to
        files).
    """
    accepted = manifest[manifest["status"] == "accepted"]
    sizes = accepted["duplicate_group"].value_counts()
    table = Counter(zip(accepted["split"], accepted["label"], strict=True))
    refused = manifest.loc[manifest["status"] == "quarantined", "reason"]
    return {
        "test_split": rule.test_split,
        "ratios": dict(zip(SPLITS, rule.ratios, strict=True)),
        "seed": rule.seed,
        "classes": list(classes),
        "counts": {split: {name: table[split, name] for name in classes} for split in SPLITS},
        "groups": {
            "count": len(sizes),
            "largest": int(sizes.max()) if len(sizes) else 0,
            "with_near_copies": int((sizes > 1).sum()),
        },
        "duplicates": int(manifest["reason"].eq(COPY).sum()),
        "shared_with_official_test": int(manifest["reason"].eq(SHARED_WITH_TEST).sum()),
        "quarantined": dict(Counter(refused).most_common()),
    }


def fingerprint(manifest: pd.DataFrame) -> str:
    """sha256 over path, scan id and label of every file: equal for equal sources, wherever they lie."""
    rows = manifest.sort_values("path")[["path", "scan_id", "label"]]
    text = "\n".join("\t".join(map(str, row)) for row in rows.itertuples(index=False))
    return hashlib.sha256(text.encode()).hexdigest()


def group_names(groups: npt.NDArray[np.int64], scan_ids: pd.Series) -> pd.Series:
    """A name per group that does not depend on the order of files: the start of its smallest scan id.

    Args:
        groups: Group index per row, -1 for none.
        scan_ids: Scan id per row.

    Returns:
        16 hexadecimal characters per row, None for rows without group; with the index of `scan_ids`.
    """
    rows = pd.DataFrame({"group": groups, "name": scan_ids.to_numpy()}).sort_values("name")
    smallest = rows.drop_duplicates("group").set_index("group")["name"].str.slice(0, 16).to_dict()
    smallest[-1] = None
    return pd.Series([smallest[group] for group in groups], index=scan_ids.index, dtype=object)


def _official_of_scans(rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.object_]]:
    """The official split of each row's scan: a scan with a copy in the test half belongs to the test half."""
    rank = {"test": 0, "validation": 1, "train": 2}
    order = rows["official_split"].map(lambda split: rank.get(split, 2))
    best = order.groupby(rows["scan_id"]).transform("min")
    return best.map(dict(enumerate(rank))).to_numpy(dtype=object)


def _groups_are_whole(table: pd.DataFrame) -> pd.Series:
    accepted = table[table["status"] == "accepted"]
    sides = accepted.groupby("duplicate_group")["split"].nunique()
    return ~table["duplicate_group"].isin(sides.index[sides > 1])
