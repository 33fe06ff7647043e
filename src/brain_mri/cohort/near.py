"""Near copies: pairs of pictures whose hashes are near and whose thumbnails correlate.

The difference hash (dHash, N. Krawetz, "Kind of Like That", hackerfactor.com, 2013) has 64 bits. They are
dealt to four bands; two hashes that differ in at most two bits agree in at least two bands (pigeonhole), so a
table for each of the six pairs of bands finds every such pair, and only hashes of equal key are compared.
Bits are dealt by their entropy over the hashes at hand: scans share their black borders, and a band of border
bits would tell nobody apart.

A picture that someone mirrored has another hash. Where such copies count too, every picture is searched for
four times, as it is and mirrored in three ways.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

HASH_DISTANCE = 2
THUMBNAIL_CORRELATION = 0.98
THUMBNAIL_SIDE = 64
THUMBNAIL_BYTES = THUMBNAIL_SIDE**2

_BANDS = HASH_DISTANCE + 2
_BLOCK = 1024  # rows of one hash that are paired at once, so that thousands of them are looked up in tiles
_PAIRS_EXPANDED = 2**20
_PAIRS_COMPARED = 2**12  # before looking what is joined by now
_THUMBNAILS_LOOKED_UP = 8192  # 32 MiB
_THUMBNAILS_AT_ONCE = 8  # as float64 256 KiB, which stays in cache; 16 took four times as long

_MIRRORED = (
    (slice(None), slice(None, None, -1)),  # left to right
    (slice(None, None, -1), slice(None)),  # upside down
    (slice(None, None, -1), slice(None, None, -1)),  # both, which is half a turn
)

Indices: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Thumbnails: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.uint8]]
"""Called with n scan ids, it returns their thumbnails in that order: uint8, shape (n, 4096)."""


def near_copies(
    hashes: Hashes,
    scan_ids: npt.NDArray[np.object_],
    thumbnails: Thumbnails,
    new: Mask,
    joined: Callable[[], Indices],
    *,
    mirrored: bool = False,
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of pictures with hashes at most 2 bits apart and a correlation of at least 0.98.

    Left out are pairs without a new picture, and pairs that the caller has joined when their turn comes.
    Pictures of equal hash are compared with one neighbour first, so copies need one comparison each. Memory
    stays flat: at most 8,192 thumbnails are held, and only of pictures in such a pair. A pair may come twice.

    Args:
        hashes: uint64, shape (pictures,).
        scan_ids: Object, shape (pictures,): what each picture's thumbnail is looked up by.
        thumbnails: Looks thumbnails up.
        new: bool, shape (pictures,).
        joined: Called again and again, it returns each picture's component by now: int64, shape (pictures,).
        mirrored: Whether pictures are near copies, too, if they are once one is mirrored left to right,
            upside down, or both. Hashes of mirrored pictures, and of those that they are compared with, are
            made from the thumbnails, so that all of these are asked for, 8,192 at once.

    Yields:
        Pairs of places in `hashes`: two int64 arrays of one length.

    Raises:
        ValueError: `thumbnails` returned another shape or dtype.
    """

    def wanted(first: Indices, second: Indices) -> Mask:
        component = joined()
        apart: Mask = component[first] != component[second]
        return apart & (new[first] | new[second])

    def look_up(places: Indices) -> npt.NDArray[np.uint8]:
        return _look_up(thumbnails, scan_ids[places].tolist())

    yield from _alike(hashes, look_up, joined, wanted)
    if mirrored:
        yield from _mirrored_copies(look_up, joined, wanted)


def near_hashes(hashes: Hashes) -> Iterator[Indices]:
    """Every pair of hashes at most 2 bits apart, once, as places in arrays of shape (2, pairs).

    Rows are sorted by a table's key and compared with the neighbour 1, 2, 3 … places on while the key is
    equal. So memory stays linear in the rows, however many share a key.

    Args:
        hashes: uint64, shape (rows,); distinct, or every pair of equal ones comes as well.

    Example:
        >>> [pair.ravel().tolist() for pair in near_hashes(np.array([0, 7, 1], np.uint64))]
        [[0, 2], [2, 1]]
    """
    keys = _keys(hashes)
    for table, key in enumerate(keys):
        order = np.argsort(hashes & key)
        ordered = hashes[order]
        place, distance = np.arange(len(hashes)), 1
        while True:
            place = place[: np.searchsorted(place, len(hashes) - distance)]
            difference = ordered[place] ^ ordered[place + distance]
            same = (difference & key) == 0
            place, difference = place[same], difference[same]
            if not len(place):
                break
            near = np.bitwise_count(difference) <= HASH_DISTANCE
            for earlier in keys[:table]:  # pairs that agree in an earlier key came up there
                near &= (difference & earlier) != 0
            if near.any():
                yield np.stack([order[place[near]], order[place[near] + distance]])
            distance += 1


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


def join(component: Indices, first: Indices, second: Indices) -> Indices:
    """Component of every row once each pair of rows (first[i], second[i]) is joined.

    Args:
        component: int64, shape (rows,): numbers from 0 to rows - 1.
        first: int64, shape (pairs,).
        second: The same.

    Returns:
        int64, shape (rows,): each joined component has the lowest number of its parts.

    Example:
        >>> join(np.array([0, 1, 2, 3]), np.array([3]), np.array([1])).tolist()
        [0, 1, 2, 1]
    """
    joined, ends = np.unique(np.stack([component[first], component[second]]), return_inverse=True)
    links = coo_matrix((np.ones(len(first), bool), (ends[0], ends[1])), shape=(len(joined), len(joined)))
    part = connected_components(links, directed=False)[1]
    lowest = np.unique(part, return_index=True)[1]
    renamed = np.arange(len(component), dtype=np.int64)
    renamed[joined] = joined[lowest[part]]
    return renamed[component]


def _alike(
    hashes: Hashes,
    look_up: Callable[[Indices], npt.NDArray[np.uint8]],
    joined: Callable[[], Indices],
    wanted: Callable[[Indices, Indices], Mask],
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of places with near hashes and thumbnails that correlate, of those that are still wanted."""

    def left(pairs: Indices) -> Indices:
        return pairs[:, wanted(*pairs)]

    for candidates in _candidates(hashes, joined):
        for portion in _portions(left(candidates)):
            pairs = left(portion)
            places = np.unique(pairs)
            looks = look_up(places)
            for start in range(0, pairs.shape[1], _PAIRS_COMPARED):
                some = left(pairs[:, start : start + _PAIRS_COMPARED])
                alike = _correlation(looks, np.searchsorted(places, some)) >= THUMBNAIL_CORRELATION
                if alike.any():
                    yield some[0, alike], some[1, alike]


def _mirrored_copies(
    look_up: Callable[[Indices], npt.NDArray[np.uint8]],
    joined: Callable[[], Indices],
    wanted: Callable[[Indices, Indices], Mask],
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of pictures that are near copies once one of them is mirrored, a way of mirroring at a time.

    Places from `pictures` on stand for the mirrored ones.
    """
    pictures = len(joined())
    hashes = np.empty((1 + len(_MIRRORED), pictures), np.uint64)
    for start in range(0, pictures, _THUMBNAILS_LOOKED_UP):
        some = np.arange(start, min(start + _THUMBNAILS_LOOKED_UP, pictures))
        hashes[:, some] = _mirrored_hashes(look_up(some))

    def one_is_mirrored(first: Indices, second: Indices) -> Mask:
        one: Mask = (first < pictures) != (second < pictures)
        return one & wanted(first % pictures, second % pictures)

    for number, turn in enumerate(_MIRRORED, start=1):

        def turned(places: Indices, turn: tuple[slice, slice] = turn) -> npt.NDArray[np.uint8]:
            looks = look_up(places % pictures).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE).copy()
            mirrored = places >= pictures
            looks[mirrored] = looks[mirrored][:, *turn]
            return looks.reshape(-1, THUMBNAIL_BYTES)

        both = np.concatenate([hashes[0], hashes[number]])
        for first, second in _alike(both, turned, lambda: np.tile(joined(), 2), one_is_mirrored):
            yield first % pictures, second % pictures


def _mirrored_hashes(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Difference hashes of thumbnails as they are and mirrored: uint64, shape (4, pictures).

    They are made as those of pictures are (`imaging.inspect.difference_hash`), from fewer pixels.
    """
    side, ninth = 9 * np.arange(THUMBNAIL_SIDE)[:, None], THUMBNAIL_SIDE * np.arange(9)
    overlap = np.minimum(side + 9, ninth + THUMBNAIL_SIDE) - np.maximum(side, ninth)  # in ninths of a pixel
    eighths = looks.reshape(len(looks), 8, 8, THUMBNAIL_SIDE).sum(axis=2, dtype=np.float64)
    # Sums of integers and a division by a power of two are exact, so that levels do not depend on batches.
    levels = np.rint(eighths @ overlap.clip(min=0).astype(np.float64) / (8 * THUMBNAIL_SIDE))
    hashes = []
    for turned in (levels, *(levels[:, *turn] for turn in _MIRRORED)):
        bits = turned[..., :-1] < turned[..., 1:]
        hashes.append(np.packbits(bits.reshape(-1, 64), axis=1).view(">u8").ravel())
    return np.array(hashes, np.uint64)


def _keys(hashes: Hashes) -> list[np.uint64]:
    """The bits of each pair of bands, as masks."""
    share = np.array([np.mean((hashes >> np.uint64(bit)) & np.uint64(1)) for bit in range(64)])
    by_entropy = np.argsort(np.abs(share - 0.5), kind="stable")
    bands = [sum(1 << int(bit) for bit in by_entropy[band::_BANDS]) for band in range(_BANDS)]
    return [np.uint64(sum(some)) for some in itertools.combinations(bands, _BANDS - HASH_DISTANCE)]


def _candidates(hashes: Hashes, joined: Callable[[], Indices]) -> Iterator[Indices]:
    """Pairs of places whose hashes are equal or near, in arrays of shape (2, at most about 2**21)."""
    order = np.argsort(hashes, kind="stable")
    values, start, count = np.unique(hashes[order], return_index=True, return_counts=True)
    follower = np.setdiff1d(np.arange(1, len(order)), start)
    yield order[np.stack([follower - 1, follower])]

    several = np.flatnonzero(count > 1)
    near = np.sort(np.concatenate([np.stack([several, several]), *near_hashes(values)], axis=1), axis=0)
    links = coo_matrix((np.ones(near.shape[1], bool), (near[0], near[1])), shape=(len(values),) * 2)
    # Pairs that hang together come together, so that most pictures are looked up once.
    near = near[:, np.argsort(connected_components(links, directed=False)[1][near[0]], kind="stable")]

    of_value, place = _spread(-(-count // _BLOCK))
    block = np.searchsorted(of_value, np.arange(len(values) + 1))
    block_start = start[of_value] + place * _BLOCK
    block_size = np.minimum(_BLOCK, count[of_value] - place * _BLOCK)
    a, b = _products(block[:-1], np.diff(block), *near)
    component = joined()[order]
    lowest, highest = (ends.reduceat(component, block_start) for ends in (np.minimum, np.maximum))
    open_ = (a <= b) & (np.minimum(lowest[a], lowest[b]) != np.maximum(highest[a], highest[b]))
    a, b = a[open_], b[open_]
    expanded = np.cumsum(block_size[a] * block_size[b])
    for portion in np.split(np.arange(len(a)), np.flatnonzero(np.diff(expanded // _PAIRS_EXPANDED)) + 1):
        first, second = _products(block_start, block_size, a[portion], b[portion])
        yield order[np.stack([first, second])[:, first < second]]


def _spread(counts: Indices) -> tuple[Indices, Indices]:
    """For counts [2, 3]: whose turn it is, [0, 0, 1, 1, 1], and the how manieth, [0, 1, 0, 1, 2]."""
    turn = np.repeat(np.arange(len(counts)), counts)
    return turn, np.arange(len(turn)) - (np.cumsum(counts) - counts)[turn]


def _products(start: Indices, size: Indices, first: Indices, second: Indices) -> Indices:
    """All pairs of a member of range first[i] with one of second[i]; ranges go from start to start + size."""
    turn, place = _spread(size[first] * size[second])
    width = size[second][turn]
    return np.stack([start[first][turn] + place // width, start[second][turn] + place % width])


def _portions(pairs: Indices) -> Iterator[Indices]:
    """The pairs in arrays that name at most _THUMBNAILS_LOOKED_UP pictures each."""
    if len(np.unique(pairs)) > _THUMBNAILS_LOOKED_UP:
        middle = pairs.shape[1] // 2
        yield from _portions(pairs[:, :middle])
        yield from _portions(pairs[:, middle:])
    elif pairs.size:
        yield pairs


def _look_up(thumbnails: Thumbnails, scan_ids: list[str]) -> npt.NDArray[np.uint8]:
    """Thumbnails by scan id; none are asked for where there are no ids."""
    shape = (len(scan_ids), THUMBNAIL_BYTES)
    looks = thumbnails(scan_ids) if scan_ids else np.empty(shape, np.uint8)
    if looks.shape != shape or looks.dtype != np.uint8:
        raise ValueError(
            f"Expected thumbnails as uint8 of shape {shape} for {len(scan_ids)} scan ids, got {looks.dtype} "
            f"of shape {looks.shape}. Return one row of 64×64 grey pixels for each id."
        )
    return looks


def _correlation(looks: npt.NDArray[np.uint8], pairs: Indices) -> npt.NDArray[np.float64]:
    """Correlation of each pair of rows of `looks`."""
    result = np.empty(pairs.shape[1])
    for start in range(0, len(result), _THUMBNAILS_AT_ONCE):
        first, second = pairs[:, start : start + _THUMBNAILS_AT_ONCE]
        result[start : start + _THUMBNAILS_AT_ONCE] = thumbnail_correlation(looks[first], looks[second])
    return result
