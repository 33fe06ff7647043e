"""Duplicate groups: scans that must never be on two sides of a split.

Near copies are found with the difference hash (dHash, N. Krawetz, "Kind of Like That", hackerfactor.com,
2013) and confirmed by the correlation of small thumbnails. Hash pairs come from banding: 64 bits in three
bands, and a pair that differs in at most two bits agrees in at least one band (pigeonhole), so only scans
that share a band value are compared and none is missed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

HASH_DISTANCE = 2
THUMBNAIL_CORRELATION = 0.98
THUMBNAIL_BYTES = 64 * 64

_BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width; one band more than HASH_DISTANCE
_PAIRS_AT_ONCE = 4096  # compared before groups are joined anew
_THUMBNAILS_AT_ONCE = 8  # as float64 256 KiB, which stays in cache; 16 took four times as long

Indices: TypeAlias = npt.NDArray[np.int64]


def duplicate_groups(
    pixel_hash: Iterable[str | None],
    dhash: Iterable[str | None],
    thumbnail: Iterable[bytes | None],
    patient: Iterable[object] | None = None,
    study: Iterable[object] | None = None,
) -> Indices:
    """Group rows that show the same scan, nearly the same scan, or the same patient.

    Two rows belong together when their pixel hashes are equal; when their dHashes differ in at most 2 of 64
    bits and their thumbnails correlate by at least 0.98; or when they share a patient or study id. Groups are
    closed transitively. The order of rows changes nothing but how the groups are numbered.

    Args:
        pixel_hash: Hash of the decoded grey pixels; None or "" for a row without features (quarantined).
        dhash: 64-bit difference hash, 16 hexadecimal characters.
        thumbnail: 64×64 grey pixels, row-major uint8, 4,096 bytes.
        patient: Patient ids, None where unknown.
        study: Study ids, None where unknown. A study belongs to one patient: it groups rows without a patient
            id, and brings them to the patient under whom alone that study is listed.

    Returns:
        Group index per row, int64, numbered from 0 by first appearance; -1 for rows without features.

    Raises:
        ValueError: Columns of unequal length, or a malformed hash or thumbnail.

    Example:
        >>> duplicate_groups(["a", "b", "a"], ["0" * 16, "f" * 16, "0" * 16], [bytes(4096)] * 3)
        array([0, 1, 0])
    """
    pixels, hashes, thumbnails = list(pixel_hash), list(dhash), list(thumbnail)
    people = _people(len(pixels), patient, study)
    for name, column in (("dhash", hashes), ("thumbnail", thumbnails), ("patient, study", people)):
        if len(column) != len(pixels):
            raise ValueError(f"Expected a {name} for each of {len(pixels)} rows, got {len(column)}.")
    rows = [row for row, value in enumerate(pixels) if _known(value)]
    groups = np.full(len(pixels), -1, dtype=np.int64)
    if not rows:
        return groups

    small = [_thumbnail(thumbnails[row], row) for row in rows]
    bits = np.array([_bits(hashes[row], row) for row in rows], dtype=np.uint64)
    looks = _first_rows(list(zip(bits.tolist(), small, strict=True)))
    component = np.arange(len(rows), dtype=np.int64)
    for same in (
        _first_rows([pixels[row] for row in rows]),
        _first_rows([people[row] for row in rows]),
        looks,
    ):
        component = _join(component, np.arange(len(rows)), same)
    component = _join_near_copies(component, bits, small, np.unique(looks))
    groups[rows] = pd.factorize(component)[0]
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


def thumbnail_correlation(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Pearson correlation of thumbnails, row by row.

    All sums are integers below 2**53, which float64 holds exactly, so the result does not depend on batches.
    Where a thumbnail is constant, correlation is undefined: 1 if both are equal, 0 otherwise.

    Args:
        first: uint8, shape (pairs, pixels).
        second: The same shape.

    Returns:
        float64, shape (pairs,), in [-1, 1] up to rounding.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    pixels = a.shape[1]
    sum_a, sum_b = a.sum(axis=1), b.sum(axis=1)
    covariance = pixels * np.vecdot(a, b) - sum_a * sum_b
    spread = np.sqrt((pixels * np.vecdot(a, a) - sum_a**2) * (pixels * np.vecdot(b, b) - sum_b**2))
    constant = spread == 0
    spread[constant], covariance[constant] = 1.0, (first[constant] == second[constant]).all(axis=1)
    correlation: npt.NDArray[np.float64] = covariance / spread
    return correlation


def _known(value: object) -> bool:
    return value is not None and value == value and value != ""  # noqa: PLR0124 - NaN is not equal to itself


def _bits(dhash: str | None, row: int) -> int:
    try:
        if dhash is not None and len(dhash) == 16:
            return int(dhash, 16)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"Expected a dHash of 16 hexadecimal characters in row {row}, got {dhash!r}.")


def _thumbnail(content: bytes | None, row: int) -> bytes:
    if content is None or len(content) != THUMBNAIL_BYTES:
        given = "none" if content is None else f"{len(content)} bytes"
        raise ValueError(f"Expected a thumbnail of {THUMBNAIL_BYTES} bytes in row {row}, got {given}.")
    return bytes(content)


def _people(rows: int, patient: Iterable[object] | None, study: Iterable[object] | None) -> list[Hashable]:
    """A key per row that equals for rows of one patient or, where no patient is known, of one study."""
    patients = [None] * rows if patient is None else [str(v) if _known(v) else None for v in patient]
    studies = [None] * len(patients) if study is None else [str(v) if _known(v) else None for v in study]
    if len(studies) != len(patients):
        raise ValueError(f"Expected a study for each of {len(patients)} rows, got {len(studies)}.")
    patients_of: dict[str, set[str]] = {}
    for person, name in zip(patients, studies, strict=True):
        if person is not None and name is not None:
            patients_of.setdefault(name, set()).add(person)
    keys: list[Hashable] = []
    for person, name in zip(patients, studies, strict=True):
        if person is not None or name is None:
            keys.append(None if person is None else ("patient", person))
        elif len(patients_of.get(name, ())) == 1:
            keys.append(("patient", next(iter(patients_of[name]))))
        else:
            keys.append(("study", name))
    return keys


def _first_rows(keys: Sequence[Hashable]) -> Indices:
    """For every row the first row with an equal key; a row whose key is None stands alone."""
    first: dict[Hashable, int] = {}
    return np.array(
        [row if key is None else first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64
    )


def _join(component: Indices, first: Indices, second: Indices) -> Indices:
    """Component of every row once each pair of rows (first[i], second[i]) is joined."""
    size = len(component)
    links = coo_matrix((np.ones(len(first), bool), (component[first], component[second])), shape=(size, size))
    merged: Indices = connected_components(links, directed=False)[1].astype(np.int64)
    return merged[component]


def _join_near_copies(
    component: Indices, bits: npt.NDArray[np.uint64], thumbnails: Sequence[bytes], rows: Indices
) -> Indices:
    """Join those of the given rows whose hashes are near and whose thumbnails correlate."""

    def stack(which: Indices) -> npt.NDArray[np.uint8]:
        content = b"".join([thumbnails[row] for row in which])
        return np.frombuffer(content, dtype=np.uint8).reshape(len(which), THUMBNAIL_BYTES)

    def correlation(first: Indices, second: Indices) -> npt.NDArray[np.float64]:
        result = np.empty(len(first))
        for start in range(0, len(first), _THUMBNAILS_AT_ONCE):
            part = slice(start, start + _THUMBNAILS_AT_ONCE)
            result[part] = thumbnail_correlation(stack(first[part]), stack(second[part]))
        return result

    for pairs in _batched(_near_pairs(bits[rows])):
        first, second = rows[pairs]
        apart = component[first] != component[second]  # what is joined already needs no proof
        first, second = first[apart], second[apart]
        alike = correlation(first, second) >= THUMBNAIL_CORRELATION
        if alike.any():
            component = _join(component, first[alike], second[alike])
    return component


def _near_pairs(bits: npt.NDArray[np.uint64]) -> Iterator[Indices]:
    """Every pair of hashes at most HASH_DISTANCE bits apart, once, as arrays of shape (2, pairs).

    Rows are sorted by a band's value and compared with the neighbour 1, 2, 3 … places on while that value is
    equal. So memory stays linear in the rows, however many share a value (black borders make many).
    """
    masks = [np.uint64(((1 << width) - 1) << start) for start, width in _BANDS]
    for band, mask in enumerate(masks):
        order = np.argsort(bits & mask, kind="stable")
        ordered = bits[order]
        place, distance = np.arange(len(bits)), 1
        while True:
            place = place[: np.searchsorted(place, len(bits) - distance)]
            difference = ordered[place] ^ ordered[place + distance]
            same = (difference & mask) == 0
            place, difference = place[same], difference[same]
            if not len(place):
                break
            near = np.bitwise_count(difference) <= HASH_DISTANCE
            for earlier in masks[:band]:  # pairs that agree in an earlier band came up there
                near &= (difference & earlier) != 0
            if near.any():
                yield np.stack([order[place[near]], order[place[near] + distance]])
            distance += 1


def _batched(pairs: Iterable[Indices]) -> Iterator[Indices]:
    """The same pairs in arrays of shape (2, _PAIRS_AT_ONCE), the last one shorter."""
    waiting: list[Indices] = []
    for some in pairs:
        waiting.append(some)
        if sum(part.shape[1] for part in waiting) >= _PAIRS_AT_ONCE:
            joined = np.concatenate(waiting, axis=1)
            whole = joined.shape[1] // _PAIRS_AT_ONCE * _PAIRS_AT_ONCE
            yield from np.split(joined[:, :whole], whole // _PAIRS_AT_ONCE, axis=1)
            waiting = [joined[:, whole:]]
    if waiting:
        yield np.concatenate(waiting, axis=1)
