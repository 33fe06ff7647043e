from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_mri.cohort import near
from brain_mri.cohort.near import THUMBNAIL_BYTES, join, near_copies, near_hashes, thumbnail_correlation
from tests.cohort.looks import Looks, noise


def heads(rows: int, seed: int = 0) -> np.ndarray:
    """Hashes like those of heads: 400 faces, black borders that hardly vary, bits that go with those beside.

    28 of the 64 bits have an entropy below 0.7; of 5,712 real scans 24 have.
    """
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[0:8, 0:8]
    border = (np.minimum(row, 7 - row).clip(max=2) * np.minimum(column, 7 - column).clip(max=2)).ravel() / 4
    waves = np.stack(
        [np.sin(row * a + column * b + c).ravel() for a, b, c in generator.normal(0, 1, (12, 3))]
    )
    faces = (np.random.default_rng(1).normal(0, 1, (400, 12)) @ waves > 0) & (border > 0)
    chosen = faces[generator.integers(0, len(faces), rows)]
    bits = chosen ^ (generator.random((rows, 64)) < 0.02 + 0.13 * border)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def brute_force(hashes: np.ndarray) -> set[tuple[int, int]]:
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return {(a, b) for a, b in np.argwhere(distance <= 2).tolist() if a < b}


def found(hashes: np.ndarray) -> list[tuple[int, int]]:
    pairs = np.concatenate([np.empty((2, 0), int), *near_hashes(hashes)], axis=1)
    return [tuple(sorted(pair)) for pair in pairs.T.tolist()]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 64))
def test_near_hashes_are_those_of_brute_force_and_come_once(seed: int, width: int) -> None:
    """Hashes of few free bits, so that many are near; the other bits are constant, as borders are."""
    generator = np.random.default_rng(seed)
    places = generator.choice(64, width, replace=False).astype(np.uint64)
    free = generator.integers(0, 2, (60, width), dtype=np.uint64)
    free[30:] = free[:30] ^ (generator.random((30, width)) < 2 / width).astype(np.uint64)
    hashes = np.unique(
        np.bitwise_or.reduce(free << places, axis=1) | np.uint64(int(generator.integers(2**63)))
    )
    pairs = found(hashes)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(hashes)


def test_every_pair_of_two_bits_is_found() -> None:
    """No place of the two differing bits slips between the bands."""
    crowd = heads(200)
    for first, second in itertools.combinations(range(64), 2):
        near_one = crowd[0] ^ np.uint64((1 << first) | (1 << second))
        assert (0, 200) in found(np.append(crowd, near_one))


def test_near_hashes_among_look_alikes_are_those_of_brute_force() -> None:
    hashes = np.unique(heads(3_000))
    expected = brute_force(hashes)
    assert len(expected) > 50
    assert set(found(hashes)) == expected


def test_the_search_grows_with_the_rows_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in tables and comparisons; three bands of neighbouring bits made 53 comparisons a row here."""
    bitwise_count, compared = np.bitwise_count, []

    def counting(values: np.ndarray) -> np.ndarray:
        compared.append(len(values))
        return bitwise_count(values)

    monkeypatch.setattr(np, "bitwise_count", counting)
    work = {}
    for rows in (4_000, 16_000):
        compared.clear()
        assert sum(pairs.shape[1] for pairs in near_hashes(heads(rows))) > 0
        work[rows] = 6 * rows + sum(compared)
    assert sum(compared) < 4 * 16_000
    assert work[16_000] < 6 * work[4_000]  # their square would be 16 times as much


def look_up(hashes: np.ndarray, looks: Looks, new: np.ndarray, *, joins: bool) -> set[tuple[int, int]]:
    """The pairs of near copies; with `joins` they are joined as they come."""
    component, pairs = [np.arange(len(hashes))], set()
    scan_ids = np.array([str(row) for row in range(len(hashes))], object)
    for first, second in near_copies(hashes, scan_ids, looks, new, lambda: component[-1]):
        pairs |= {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
        if joins:
            component.append(join(component[-1], first, second))
    return pairs


@pytest.fixture
def crowd() -> tuple[np.ndarray, Looks]:
    """60 pictures of 5 hashes, two of them near each other; every picture looks like one of 7."""
    values = np.array([0, 1, 0xFF00, 0xFF0000, 0xFF000000], np.uint64)
    hashes = np.sort(np.tile(values, 12))
    return hashes, Looks({str(row): noise(row % 7).tobytes() for row in range(60)})


@pytest.mark.parametrize(("block", "at_once"), [(1024, 8192), (4, 8), (5, 3)])
def test_portions_change_nothing(
    crowd: tuple[np.ndarray, Looks], monkeypatch: pytest.MonkeyPatch, block: int, at_once: int
) -> None:
    monkeypatch.setattr(near, "_BLOCK", block)
    monkeypatch.setattr(near, "_PAIRS_EXPANDED", 3 * block**2)
    monkeypatch.setattr(near, "_THUMBNAILS_LOOKED_UP", at_once)
    hashes, looks = crowd
    expected = {(a, b) for a, b in brute_force(hashes) if a % 7 == b % 7}
    assert len(expected) == 45
    assert look_up(hashes, looks, np.ones(60, bool), joins=False) == expected
    assert max(map(len, looks.asked)) <= at_once


def test_only_pairs_with_a_new_picture_are_looked_at(crowd: tuple[np.ndarray, Looks]) -> None:
    hashes, looks = crowd
    new = np.arange(60) == 59
    assert look_up(hashes, looks, new, joins=False) == {(52, 59)}
    assert {scan for asked in looks.asked for scan in asked} == {str(row) for row in range(48, 60)}


def test_copies_of_one_hash_need_one_comparison_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counting(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        compared.append(len(first))
        return thumbnail_correlation(first, second)

    products, expanded = near._products, []

    def expanding(*ranges: np.ndarray) -> np.ndarray:
        pairs = products(*ranges)
        expanded.append(pairs.shape[1])
        return pairs

    monkeypatch.setattr(near, "thumbnail_correlation", counting)
    monkeypatch.setattr(near, "_products", expanding)
    rows = 5_000
    looks = Looks(dict.fromkeys(map(str, range(rows)), noise(1).tobytes()))
    look_up(np.zeros(rows, np.uint64), looks, np.ones(rows, bool), joins=True)
    assert sum(compared) == rows - 1
    assert sum(expanded) < rows  # of 25 million pairs
    assert sum(map(len, looks.asked)) < 2 * rows


def test_thumbnails_of_another_shape_are_refused() -> None:
    hashes, scan_ids = np.zeros(2, np.uint64), np.array(["a", "b"], object)
    for wrong in (np.zeros((1, THUMBNAIL_BYTES), np.uint8), np.zeros((2, THUMBNAIL_BYTES))):
        with pytest.raises(ValueError, match=r"uint8 of shape \(2, 4096\) for 2 scan ids, got"):
            list(near_copies(hashes, scan_ids, lambda _, w=wrong: w, np.ones(2, bool), lambda: np.arange(2)))


def test_correlation_agrees_with_numpy_and_defines_constants() -> None:
    first = np.stack([noise(1), noise(2), noise(3)])
    second = np.stack([noise(4), noise(2), 255 - noise(3)])
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(thumbnail_correlation(first, second), expected, atol=1e-12)
    flat = np.full((3, 64), 7, np.uint8)
    other = np.stack([flat[0], flat[0] + 1, np.arange(64, dtype=np.uint8)])
    assert thumbnail_correlation(flat, other).tolist() == [1.0, 0.0, 0.0]


def test_joined_components_have_their_lowest_number() -> None:
    component = join(np.arange(6), np.array([5, 3]), np.array([3, 1]))
    assert component.tolist() == [0, 1, 2, 1, 4, 1]
    assert join(component, np.array([4]), np.array([5])).tolist() == [0, 1, 2, 1, 1, 1]
