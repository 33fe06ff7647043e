"""Duplicate groups: scans that must never be on two sides of a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from brain_mri.cohort.near import Hashes, Indices, Thumbnails, join, near_copies


def duplicate_groups(
    rows: pd.DataFrame, thumbnails: Thumbnails, earlier: pd.Series | None = None, *, mirrored: bool = False
) -> Indices:
    """Group rows that show the same scan, nearly the same scan, or the same patient.

    Two rows belong together when their pixel hashes are equal; when their dHashes differ in at most 2 of 64
    bits and their thumbnails correlate by at least 0.98; or when they share a patient or study id. Groups are
    closed transitively. The order of rows changes nothing but how the groups are numbered.

    Args:
        rows: Columns `scan_id`; `pixel_hash`, of the decoded grey pixels, None or "" for a row without
            features (quarantined); `dhash`, 16 hexadecimal characters, equal where `pixel_hash` is; `patient`
            and `study`, None where unknown. A study belongs to one patient: it groups rows without a patient
            id, and brings them to the patient under whom alone that study is listed.
        thumbnails: Called with scan ids, it returns their 64×64 grey pixels as uint8, shape (ids, 4096). Only
            scans that have a near hash and are not joined already are asked for, at most 8,192 at once; with
            `mirrored` all are.
        earlier: Name of the group that a row has from before, None for a new row; with the index of `rows`.
            Rows of one name stay together, and only new rows join those of two names.
        mirrored: Whether near copies are looked for among mirrored pictures, too; see `near.near_copies`.

    Returns:
        Group index per row, int64, numbered from 0 by first appearance; -1 for rows without features.

    Raises:
        ValueError: A malformed hash, or thumbnails of another shape or dtype.

    Example:
        >>> rows = pd.DataFrame({"scan_id": ["x", "y", "z"], "pixel_hash": ["a", "b", "a"]})
        >>> rows = rows.assign(dhash=["0" * 16, "f" * 16, "0" * 16], patient=None, study=None)
        >>> duplicate_groups(rows, lambda ids: np.zeros((len(ids), 4096), np.uint8))
        array([0, 1, 0])
    """
    groups = np.full(len(rows), -1, dtype=np.int64)
    usable = known(rows["pixel_hash"]).to_numpy()
    if not usable.any():
        return groups
    scans = rows.assign(person=person_keys(rows), earlier=earlier)[usable]
    person, name = (pd.factorize(scans[column])[0] for column in ("person", "earlier"))
    new = name < 0
    person[~np.isin(person, person[new])] = -1  # earlier rows are not joined anew

    # Equal pixels have equal features: from here on a picture stands for all its rows.
    picture = pd.factorize(scans["pixel_hash"])[0]
    pictures = scans[~scans["pixel_hash"].duplicated()]
    all_new = np.bincount(picture, weights=~new) == 0
    component = np.arange(len(pictures), dtype=np.int64)
    for codes in (name, person):
        places, first = _first_rows(codes)
        component = join(component, picture[places], picture[first])

    def joined() -> Indices:
        return component

    hashes, ids = hash_bits(pictures["dhash"]), pictures["scan_id"].to_numpy(dtype=object)
    for pair in near_copies(hashes, ids, thumbnails, all_new, joined, mirrored=mirrored):
        component = join(component, *pair)
    groups[usable] = pd.factorize(component[picture])[0]
    return groups


def conflicting_groups(labels: Iterable[str], groups: npt.ArrayLike) -> Indices:
    """Indices, ascending, of the groups that hold more than one label.

    Args:
        labels: Class name per row.
        groups: Group index per row, as from `duplicate_groups`; rows with -1 are left out.
    """
    pairs = pd.DataFrame({"label": list(labels), "group": np.asarray(groups)}).drop_duplicates()
    counts = pairs.loc[pairs["group"] >= 0, "group"].value_counts()
    return np.sort(counts.index[counts > 1].to_numpy(dtype=np.int64))


def known(values: pd.Series) -> pd.Series:
    """Whether values are given: neither None nor NaN nor ""."""
    return values.notna() & values.ne("")


def person_keys(rows: pd.DataFrame) -> pd.Series:
    """A key per row that equals for rows of one patient or, where no patient is known, of one study.

    Args:
        rows: Columns `patient` and `study`; None, NaN or "" where unknown.

    Returns:
        Text per row, with the index of `rows`; None where neither is known.
    """
    patients, studies = (
        [str(value) if given else None for value, given in zip(rows[name], known(rows[name]), strict=True)]
        for name in ("patient", "study")
    )
    patients_of: dict[str, set[str]] = {}
    for patient, study in zip(patients, studies, strict=True):
        if patient is not None and study is not None:
            patients_of.setdefault(study, set()).add(patient)
    only_patient_of = {study: min(some) for study, some in patients_of.items() if len(some) == 1}
    keys: list[str | None] = []
    for patient, study in zip(patients, studies, strict=True):
        person = patient if patient is not None or study is None else only_patient_of.get(study)
        if person is not None:
            keys.append(f"patient {person}")
        else:
            keys.append(None if study is None else f"study {study}")
    return pd.Series(keys, index=rows.index, dtype=object)


def hash_bits(dhash: pd.Series) -> Hashes:
    """DHashes of 16 hexadecimal characters as uint64, shape (rows,).

    Raises:
        ValueError: A malformed one.
    """
    try:
        if (dhash.str.len() == 16).all():
            return np.array([int(value, 16) for value in dhash], dtype=np.uint64)
    except (TypeError, ValueError, AttributeError):
        pass
    wrong = dhash[~dhash.astype(str).str.fullmatch("[0-9a-fA-F]{16}")]
    raise ValueError(
        f"Expected dHashes of 16 hexadecimal characters, got {wrong.iloc[0]!r} in row {wrong.index[0]}. "
        "Inspect the scans anew."
    )


def _first_rows(codes: Indices) -> tuple[Indices, Indices]:
    """Places of the rows whose code is 0 or more, and for each the first place with an equal code."""
    places = np.flatnonzero(codes >= 0)
    _, first, turn = np.unique(codes[places], return_index=True, return_inverse=True)
    return places, places[first[turn]]
