from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_mri.cohort.groups import (
    THUMBNAIL_BYTES,
    conflicting_groups,
    duplicate_groups,
    thumbnail_correlation,
)

Rows = list[tuple[str, str, bytes, str | None, str | None]]

FLAT = bytes([9]) * THUMBNAIL_BYTES


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, THUMBNAIL_BYTES, dtype=np.uint8)


def blend(first: np.ndarray, second: np.ndarray, share: float) -> bytes:
    """A thumbnail between two; its correlation with the first passes 0.98 at a share of about 0.169."""
    return ((1 - share) * first + share * second).astype(np.uint8).tobytes()


def brute_force(rows: Rows) -> np.ndarray:
    """The rule, pair by pair: an independent, slow statement of what duplicate_groups promises."""
    groups = list(range(len(rows)))
    patients_of: dict[str, set[str]] = {}
    for *_, patient, study in rows:
        if patient and study:
            patients_of.setdefault(study, set()).add(patient)

    def person(patient: str | None, study: str | None) -> tuple[str, str] | None:
        if patient is None and study is not None and len(patients_of.get(study, ())) == 1:
            patient = next(iter(patients_of[study]))
        if patient is not None:
            return ("patient", patient)
        return None if study is None else ("study", study)

    def together(a: int, b: int) -> bool:
        pixels, hashes, thumbnails, patients, studies = zip(rows[a], rows[b], strict=True)
        people = [person(patient, study) for patient, study in zip(patients, studies, strict=True)]
        if pixels[0] == pixels[1] or (people[0] is not None and people[0] == people[1]):
            return True
        if (int(hashes[0], 16) ^ int(hashes[1], 16)).bit_count() > 2:
            return False
        x, y = (np.frombuffer(thumbnail, np.uint8).astype(float) for thumbnail in thumbnails)
        if x.std() == 0 or y.std() == 0:
            return thumbnails[0] == thumbnails[1]
        return bool(np.corrcoef(x, y)[0, 1] >= 0.98)

    for a in range(len(rows)):
        for b in range(a):
            if together(a, b):
                old, new = groups[a], groups[b]
                groups = [new if group == old else group for group in groups]
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([order[group] for group in groups], dtype=np.int64)


def grouped(rows: Rows) -> np.ndarray:
    return duplicate_groups(*zip(*rows, strict=True))


# Hashes a few bits from one of two centres, thumbnails on both sides of the correlation threshold.
hashes = st.builds(
    lambda centre, bits: f"{centre ^ sum({1 << bit for bit in bits}):016x}",
    st.sampled_from([0, 0x0123456789ABCDEF]),
    st.lists(st.sampled_from([0, 1, 20, 21, 41, 42, 63]), max_size=4),
)
thumbnails = st.one_of(
    st.builds(
        lambda seed, share: blend(noise(seed), noise(100), share),
        st.integers(0, 1),
        st.sampled_from([0.0, 0.1, 0.15, 0.16, 0.17, 0.18, 0.2, 0.3]),
    ),
    st.sampled_from([FLAT, bytes(THUMBNAIL_BYTES)]),
)
some_rows = st.lists(
    st.tuples(
        st.integers(0, 40).map(str),
        hashes,
        thumbnails,
        st.one_of(st.none(), st.none(), st.sampled_from(["p", "q", "r"])),
        st.one_of(st.none(), st.none(), st.sampled_from(["1", "2"])),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150)
@given(some_rows)
def test_groups_equal_brute_force(rows: Rows) -> None:
    np.testing.assert_array_equal(grouped(rows), brute_force(rows))


@settings(max_examples=40)
@given(some_rows, st.randoms(use_true_random=False))
def test_row_order_only_renames_groups(rows: Rows, random) -> None:
    order = random.sample(range(len(rows)), len(rows))
    before = grouped(rows)[order]
    after = grouped([rows[row] for row in order])
    assert len(set(zip(before, after, strict=True))) == len(set(before)) == len(set(after))


def test_every_pair_of_two_bits_is_found() -> None:
    """No place of the two differing bits slips between the bands; three bits are too many."""
    look = noise(1).tobytes()
    for first in range(0, 64, 3):
        for second in range(first + 1, 64, 7):
            near = f"{(1 << first) | (1 << second):016x}"
            assert duplicate_groups(["a", "b"], ["0" * 16, near], [look, look]).tolist() == [0, 0]
    assert duplicate_groups(["a", "b"], ["0" * 16, f"{0b111:016x}"], [look, look]).tolist() == [0, 1]


def test_equal_hash_without_correlation_is_no_copy() -> None:
    assert duplicate_groups(
        ["a", "b"], ["0" * 16] * 2, [noise(1).tobytes(), noise(2).tobytes()]
    ).tolist() == [0, 1]


def test_rows_without_features_get_no_group() -> None:
    groups = duplicate_groups(
        ["", "a", None, "a"], ["", "f" * 16, None, "f" * 16], [b"", FLAT, None, FLAT], ["p"] * 4
    )
    assert groups.tolist() == [-1, 0, -1, 0]
    assert duplicate_groups([None], [None], [None]).tolist() == [-1]


@pytest.mark.parametrize(
    ("patients", "studies", "groups"),
    [
        (["p", "p", "q"], None, [0, 0, 1]),
        (None, ["1", "1", None], [0, 0, 1]),
        (["p", None, "q"], ["1", "1", "2"], [0, 0, 1]),  # a study of one patient brings its rows along
        (["p", "q", None], ["1", "1", "1"], [0, 1, 2]),  # a study number used twice joins no patients
        ([float("nan"), "", None], ["", None, float("nan")], [0, 1, 2]),
    ],
)
def test_patient_and_study_ids_group(
    patients: list[object] | None, studies: list[object] | None, groups: list[int]
) -> None:
    looks = [noise(seed).tobytes() for seed in range(3)]
    far = ["0" * 16, "f" * 16, "0f" * 8]
    assert duplicate_groups(["a", "b", "c"], far, looks, patients, studies).tolist() == groups


def test_correlation_agrees_with_numpy_and_defines_constants() -> None:
    first = np.stack([noise(1), noise(2), noise(3)])
    second = np.stack([noise(4), noise(2), 255 - noise(3)])
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(thumbnail_correlation(first, second), expected, atol=1e-12)
    flat = np.full((3, 64), 7, np.uint8)
    other = np.stack([flat[0], flat[0] + 1, np.arange(64, dtype=np.uint8)])
    assert thumbnail_correlation(flat, other).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("dhash", "thumbnail", "message"),
    [
        (["0" * 15], [FLAT], "16 hexadecimal"),
        (["x" * 16], [FLAT], "16 hexadecimal"),
        (["0" * 16], [b"123"], "4096 bytes in row 0, got 3 bytes"),
        (["0" * 16], [FLAT, FLAT], "a thumbnail for each of 1 rows, got 2"),
    ],
)
def test_malformed_features_are_refused(dhash: list[str], thumbnail: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        duplicate_groups(["a"], dhash, thumbnail)


def test_conflicting_groups_are_those_with_two_labels() -> None:
    assert conflicting_groups(["a", "b", "b", "b", "a", "c"], [0, 1, 0, 1, -1, -1]).tolist() == [0]


def test_thousands_of_hashes_with_a_band_in_common_are_not_all_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Black borders give thousands of scans one band value; comparing pixels of all pairs takes minutes."""
    compared = []

    def count(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        compared.extend(first[:, 0])
        return thumbnail_correlation(first, second)

    monkeypatch.setattr("brain_mri.cohort.groups.thumbnail_correlation", count)
    rows = 4_000
    generator = np.random.default_rng(5)
    bits = generator.integers(0, 2**42, rows, dtype=np.uint64) << np.uint64(21)  # the lowest band is always 0
    bits[1] = bits[0] ^ np.uint64(1 << 30)  # one pair that is worth a look
    looks = [generator.bytes(THUMBNAIL_BYTES) for _ in range(rows)]
    groups = duplicate_groups([str(row) for row in range(rows)], [f"{value:016x}" for value in bits], looks)
    assert groups.tolist() == list(range(rows))
    assert len(compared) == 1


@pytest.mark.realdata
@pytest.mark.slow
def test_real_training_half_makes_4780_groups(real_data: Path) -> None:
    from brain_mri.imaging.inspect import inspect_scan

    files = sorted((real_data / "Training").rglob("*.jpg"))
    scans = [inspect_scan(file.read_bytes()) for file in files]
    groups = duplicate_groups(
        *zip(*((scan.pixel_hash, scan.dhash, scan.thumbnail) for scan in scans), strict=True)
    )
    assert len(files) == 5712
    assert groups.min() == 0
    assert groups.max() + 1 == 4780
    assert np.bincount(groups).max() == 22
    assert conflicting_groups([file.parent.name for file in files], groups).tolist() == []
