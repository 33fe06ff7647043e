"""Bridges: new scans that would connect two sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from brain_mri.cohort.groups import hash_bits, person_keys
from brain_mri.cohort.near import Indices, Thumbnails, near_copies


def without_bridges(
    rows: pd.DataFrame, groups: Indices, thumbnails: Thumbnails, *, mirrored: bool = False
) -> Indices:
    """Take new rows out of groups that hold earlier scans of two sides, until no group does.

    The new rows of such a group are added to the earlier ones one after another in the order of scan ids; one
    that would connect two sides at that moment is taken out. So the others stay usable, and the outcome does
    not depend on the order of rows.

    Args:
        rows: Columns `path`, `scan_id`, `pixel_hash`, `dhash`, `patient`, `study`; `is_new`; of earlier rows
            `duplicate_group`, their group from before, `status` and `split`.
        groups: int64, shape (rows,), as from `duplicate_groups` with these earlier groups.
        thumbnails: As for `duplicate_groups`.
        mirrored: As for `duplicate_groups`.

    Returns:
        Group index per row, int64: groups on one side or none as given, parts of the others under new
        numbers, -1 for what was taken out.
    """
    sides = rows["split"].groupby(groups).nunique()
    straddling = np.isin(groups, sides.index[sides > 1])
    if not straddling.any():
        return groups
    some = rows.assign(person=person_keys(rows))[straddling].reset_index(drop=True)
    parts = _parts(some, thumbnails, mirrored)
    result = groups.copy()
    result[straddling] = np.where(parts < 0, -1, parts + groups.max() + 1)
    return result


def _parts(rows: pd.DataFrame, thumbnails: Thumbnails, mirrored: bool) -> Indices:
    """Number of the part that each row ends up in, -1 for rows that were taken out."""
    picture = pd.factorize(rows["pixel_hash"])[0]
    near = _near_pictures(rows, picture, thumbnails, mirrored)
    hubs: list[list[Hashable]] = [
        [look, person] if isinstance(person, str) else [look]
        for look, person in zip(picture.tolist(), rows["person"], strict=True)
    ]
    # An earlier row stands for its group by the group's name, a new row for itself by its place.
    new = rows["is_new"].tolist()
    node: list[Hashable] = [row if new[row] else group for row, group in enumerate(rows["duplicate_group"])]
    joined = DisjointSet()
    side: dict[Hashable, Hashable] = {}
    split, accepted = rows["split"].tolist(), rows["status"].eq("accepted").tolist()
    # What is tied to a picture or a person: earlier groups, until a new row has joined them all.
    tied: dict[Hashable, set[Hashable]] = defaultdict(set)
    for row in np.flatnonzero(~rows["is_new"]).tolist():
        joined.add(node[row])
        if accepted[row]:
            side[node[row]] = split[row]
        for hub in hubs[row]:
            tied[hub].add(node[row])
    for row in rows[rows["is_new"]].sort_values(["scan_id", "path"]).index:
        touched = set().union(*(tied[hub] for hub in (*hubs[row], *near[picture[row]])))
        parts = {joined[other] for other in touched}
        sides = {side[part] for part in parts if part in side}
        if len(sides) > 1:
            node[row] = None
            continue
        joined.add(row)
        for part in parts:
            joined.merge(row, part)
        side.update((joined[row], split) for split in sides)
        tied.update((hub, {row}) for hub in hubs[row])
    part = [None if some is None else joined[some] for some in node]
    return pd.factorize(np.array(part, dtype=object))[0].astype(np.int64)


def _near_pictures(
    rows: pd.DataFrame, picture: Indices, thumbnails: Thumbnails, mirrored: bool
) -> dict[int, set[int]]:
    """The near copies of each picture, but those of earlier pictures among each other."""
    pictures = rows[~rows["pixel_hash"].duplicated()]
    new = np.bincount(picture, weights=~rows["is_new"]) == 0
    alone = np.arange(len(pictures), dtype=np.int64)
    hashes, ids = hash_bits(pictures["dhash"]), pictures["scan_id"].to_numpy(dtype=object)
    near: dict[int, set[int]] = defaultdict(set)
    for pairs in near_copies(hashes, ids, thumbnails, new, lambda: alone, mirrored=mirrored):
        for first, second in zip(*(side.tolist() for side in pairs), strict=True):
            near[first].add(second)
            near[second].add(first)
    return near
