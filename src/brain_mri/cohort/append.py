"""Appending: files of a further source join a manifest, and no earlier scan changes sides."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from brain_mri.cohort.bridges import without_bridges
from brain_mri.cohort.groups import duplicate_groups
from brain_mri.cohort.manifest import BRIDGE, CONFLICT, COPY, ROW_COLUMNS, SplitRule, group_names
from brain_mri.cohort.near import Thumbnails
from brain_mri.cohort.split import SPLITS, assign_splits

_FEATURES = (
    "pixel_hash", "dhash", "bytes", "width", "height", "mode", "format", "bit_depth", "mean_intensity"
)  # fmt: skip


class AppendError(ValueError):
    """The files cannot be appended to this manifest; the message says how to mend it."""


def extend_manifest(
    earlier: pd.DataFrame,
    files: pd.DataFrame,
    inspections: pd.DataFrame,
    rule: SplitRule,
    thumbnails: Thumbnails,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add the files of a further source to a manifest.

    Every earlier row stays as it is, but for the name of its group, which may grow. A file whose path and
    content are there already changes nothing. Where its path belongs to other content, it is listed as
    `<path>@<first 12 digits of its scan id>`. Known content at a new path becomes a duplicate, or is refused
    as the earlier scan was.

    New scans are grouped with all earlier ones that have a group. Those that join accepted scans go to their
    side, if they have their label; else they are quarantined, as is what joins scans that were quarantined
    for two labels. A new scan that would connect two sides is quarantined (`bridges_splits`); see
    `bridges.without_bridges`. Groups of new scans alone are drawn so that the ratios hold for earlier and new
    scans together.

    Args:
        earlier: The manifest so far, columns `ROW_COLUMNS`.
        files: Columns `path`, `label`, `patient`, `study`; a row per file of the source.
        inspections: The fields of `imaging.inspect.Inspection` but `thumbnail`, by `path`. Where a row of the
            manifest has the same content (status `known`), only `scan_id` counts.
        rule: How to split; `test_split` must be `grouped`.
        thumbnails: Looks up the thumbnails of earlier and new scans, as for `duplicate_groups`.

    Returns:
        The manifest, sorted by path, and what changed as JSON-able values: `files` (of the source), which are
        either `known` or `added` (accepted, by split and class) or `duplicates` or `quarantined` (by reason);
        and `earlier` (scans accepted before).

    Raises:
        AppendError: An official test half; a manifest without the columns; files that are called known and
            are not; a name that two files claim.
        SplitError: A class new to the manifest with fewer than three groups.
    """
    _check(earlier, rule)
    new = _new_files(earlier, files.merge(inspections, on="path", validate="one_to_one"))
    manifest = earlier
    if len(new):
        before = earlier.assign(is_new=False)
        rows = pd.concat([before, _with_earlier_features(earlier, new)], ignore_index=True)
        rows = rows.sort_values("path", ignore_index=True)
        manifest = _decide(rows, rule, thumbnails)[list(ROW_COLUMNS)]
    return manifest, _changes(earlier, manifest, len(files))


def _check(earlier: pd.DataFrame, rule: SplitRule) -> None:
    """Refuse what cannot be appended to."""
    if rule.test_split != "grouped":
        raise AppendError(
            f"Files can be appended only where the splits are drawn (test_split 'grouped'), got "
            f"{rule.test_split!r}: an official test half is that of one source. Run without ingestion.append "
            "on a source that holds all files, or set ingestion.test_split back to its default."
        )
    missing = [name for name in ROW_COLUMNS if name not in earlier.columns]
    if missing:
        raise AppendError(
            f"The earlier manifest has no column {', '.join(missing)}: another version wrote it. "
            "Run ingestion once without ingestion.append, on a source that holds all files."
        )


def _new_files(earlier: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that the manifest has not got, each under the name that it is listed by."""
    content = dict(zip(earlier["path"], earlier["scan_id"].fillna(""), strict=True))
    rows = rows.assign(scan_id=rows["scan_id"].fillna(""))
    taken = rows["path"].isin(content) & rows["path"].map(content).ne(rows["scan_id"])
    apart = rows["path"] + "@" + rows["scan_id"].str.slice(0, 12).replace("", "unreadable")
    rows["path"] = rows["path"].where(~taken, apart)
    rows = rows[rows["path"].map(content).ne(rows["scan_id"])]
    clash = rows.loc[rows["path"].isin(content) | rows["path"].duplicated(), "path"]
    if len(clash):
        raise AppendError(
            f"{len(clash)} files would be listed under a name that another file has, for instance "
            f"{clash.iloc[0]!r}. Rename them in the source."
        )
    return rows


def _with_earlier_features(earlier: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """New rows; those of known content with the features of the earlier scan, refused if it was refused."""
    # By the alphabet accepted goes before duplicate, and that before quarantined.
    scans = earlier.sort_values(["status", "path"])
    scans = scans[scans["scan_id"].fillna("").ne("")].drop_duplicates("scan_id").set_index("scan_id")
    scan = scans.reindex(new["scan_id"]).set_index(new.index)
    is_known = scan["status"].notna()
    stray = new.loc[new["status"].eq("known") & ~is_known, "path"]
    if len(stray):
        raise AppendError(
            f"{len(stray)} files are called known, but no row of the earlier manifest has their content, for "
            f"instance {stray.iloc[0]!r}. Run with the manifest that belongs to the stored scans."
        )
    new = new.assign(split=None, duplicate_group=None, is_new=True, is_known=is_known)
    for name in _FEATURES:
        values = pd.Series(np.where(is_known, scan[name], new[name]), index=new.index)
        new[name] = values.astype(earlier[name].dtype)
    refused = is_known & scan["duplicate_group"].isna()
    new["status"] = np.select([refused, is_known], ["quarantined", "accepted"], new["status"])
    new["reason"] = np.select([refused, is_known], [scan["reason"], ""], new["reason"])
    return new


def _decide(rows: pd.DataFrame, rule: SplitRule, thumbnails: Thumbnails) -> pd.DataFrame:
    """Group new rows with earlier ones; give each a status and a split."""
    usable = rows["duplicate_group"].notna() | (rows["is_new"] & rows["status"].eq("accepted"))
    scans = rows[usable]
    groups = duplicate_groups(scans, thumbnails, scans["duplicate_group"], mirrored=rule.mirrored)
    groups = without_bridges(scans, groups, thumbnails, mirrored=rule.mirrored)
    refused = _refused(scans)
    scans = scans.assign(group=groups, duplicate_group=group_names(groups, scans["scan_id"]))

    new = scans["is_new"]
    bridge = new & scans["group"].lt(0)
    conflict = new & ~bridge & _contradicts(scans, refused)
    kept = new & ~bridge & ~conflict
    copy = kept & (scans["is_known"].eq(True) | scans["scan_id"].where(kept, scans["path"]).duplicated())
    for which, status, reason in (
        (bridge, "quarantined", BRIDGE),
        (conflict, "quarantined", CONFLICT),
        (copy, "duplicate", COPY),
    ):
        scans.loc[which, ["status", "reason"]] = [status, reason]

    side = scans[~new].dropna(subset="split").drop_duplicates("group").set_index("group")["split"]
    accepted = kept & ~copy
    scans.loc[accepted, "split"] = scans.loc[accepted, "group"].map(side)
    drawn = accepted & scans["split"].isna()
    if drawn.any():
        some = scans[drawn]
        scans.loc[drawn, "split"] = assign_splits(
            some["label"],
            some["group"],
            some["scan_id"],
            ratios=rule.ratios,
            seed=rule.seed,
            filled=_filled(scans),
        )
    decided = ["status", "reason", "split", "duplicate_group"]
    rows.loc[usable, decided] = scans[decided]
    rows["split"] = rows["split"].astype(object).where(rows["split"].notna(), None)
    return rows


def _refused(scans: pd.DataFrame) -> pd.Series:
    """Whether an earlier row belongs to a group that was quarantined as a whole, for two labels.

    A scan that was quarantined because it contradicted the accepted scans of its group says nothing of those.
    """
    group = scans["duplicate_group"]
    return scans["reason"].eq(CONFLICT) & ~group.isin(group[scans["status"].eq("accepted") & group.notna()])


def _contradicts(scans: pd.DataFrame, refused: pd.Series) -> pd.Series:
    """Whether the label of a new row, or its group, contradicts what the group holds.

    Where the group has accepted earlier scans, their label is right; else that of the new, if they agree.
    """
    group, label, new = scans["group"], scans["label"], scans["is_new"]
    accepted = ~new & scans["status"].eq("accepted")
    earlier = label[accepted].groupby(group[accepted]).agg(["first", "nunique"])
    labels = label[new].groupby(group[new]).nunique()
    joins = group.isin(earlier.index)
    differs = group.map(earlier["first"]).ne(label) | group.map(earlier["nunique"]).gt(1)
    return group.isin(group[~new & refused]) | (joins & differs) | (~joins & group.map(labels).gt(1))


def _filled(scans: pd.DataFrame) -> dict[str, list[int]]:
    """Scans of each class that train, validation and test hold."""
    counts = pd.crosstab(scans["label"], scans["split"]).reindex(columns=list(SPLITS), fill_value=0)
    return dict(zip(counts.index, counts.to_numpy().tolist(), strict=True))


def _changes(earlier: pd.DataFrame, manifest: pd.DataFrame, files: int) -> dict[str, Any]:
    """What `extend_manifest` says changed."""
    new = manifest[~manifest["path"].isin(earlier["path"])]
    added = new[new["status"].eq("accepted")]
    table = Counter(zip(added["split"], added["label"], strict=True))
    classes = sorted(set(manifest["label"]))
    return {
        "files": files,
        "known": files - len(new),
        "added": {split: {name: table[split, name] for name in classes} for split in SPLITS},
        "duplicates": int(new["status"].eq("duplicate").sum()),
        "quarantined": dict(Counter(new.loc[new["status"].eq("quarantined"), "reason"]).most_common()),
        "earlier": int(earlier["status"].eq("accepted").sum()),
    }
