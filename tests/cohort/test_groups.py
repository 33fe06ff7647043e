from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_mri.cohort import near
from brain_mri.cohort.groups import conflicting_groups, duplicate_groups
from brain_mri.cohort.near import THUMBNAIL_BYTES, thumbnail_correlation
from brain_mri.imaging.inspect import difference_hash, thumbnail
from tests.cohort.looks import Looks, blend, faces, noise

Rows = list[tuple[str, str, bytes, str | None, str | None]]

FLAT = bytes([9]) * THUMBNAIL_BYTES


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


def tables(rows: Rows) -> tuple[pd.DataFrame, Looks]:
    """The rows as `duplicate_groups` takes them; every row is a scan of its own."""
    scan_ids = [f"scan {row}" for row in range(len(rows))]
    table = pd.DataFrame(rows, columns=["pixel_hash", "dhash", "thumbnail", "patient", "study"])
    looks = Looks(dict(zip(scan_ids, table.pop("thumbnail"), strict=True)))
    return table.assign(scan_id=scan_ids), looks


def grouped(rows: Rows) -> np.ndarray:
    return duplicate_groups(*tables(rows))


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
# Equal pixels make equal features, so rows are drawn from some pictures.
pictures = st.lists(st.tuples(hashes, thumbnails), min_size=1, max_size=12)
some_rows = pictures.flatmap(
    lambda drawn: st.lists(
        st.builds(
            lambda picture, patient, study: (str(picture), *drawn[picture], patient, study),
            st.integers(0, len(drawn) - 1),
            st.one_of(st.none(), st.none(), st.sampled_from(["p", "q", "r"])),
            st.one_of(st.none(), st.none(), st.sampled_from(["1", "2"])),
        ),
        min_size=1,
        max_size=14,
    )
)


@settings(max_examples=200)
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


@settings(max_examples=100)
@given(some_rows, st.integers(0, 14))
def test_new_rows_join_earlier_groups_as_if_all_were_grouped_at_once(rows: Rows, share: int) -> None:
    """Without studies: a patient that is found out later does not join what is grouped already."""
    rows = [(*row[:4], None) for row in rows]
    table, looks = tables(rows)
    first = duplicate_groups(table[:share], looks)
    names = pd.Series([f"group {group}" for group in first] + [None] * (len(rows) - len(first)), dtype=object)
    np.testing.assert_array_equal(duplicate_groups(table, looks, names), brute_force(rows))


def test_only_new_rows_join_earlier_groups() -> None:
    """Two earlier rows of one patient in two groups stay apart until a new row of the patient comes."""
    far = ["0" * 16, "f" * 16, "0f" * 8]
    table, looks = tables([(str(row), far[row], noise(row).tobytes(), "p", None) for row in range(3)])
    names = pd.Series(["a", "b", None])
    assert duplicate_groups(table[:2], looks, names[:2]).tolist() == [0, 1]
    assert duplicate_groups(table, looks, names).tolist() == [0, 0, 0]


def test_three_bits_are_too_many() -> None:
    look = noise(1).tobytes()
    rows: Rows = [("a", "0" * 16, look, None, None), ("b", f"{0b11:016x}", look, None, None)]
    assert grouped(rows).tolist() == [0, 0]
    rows[1] = ("b", f"{0b111:016x}", look, None, None)
    assert grouped(rows).tolist() == [0, 1]


def test_equal_hash_without_correlation_is_no_copy() -> None:
    rows: Rows = [(str(seed), "0" * 16, noise(seed).tobytes(), None, None) for seed in (1, 2)]
    assert grouped(rows).tolist() == [0, 1]


def test_thumbnails_are_looked_up_of_candidates_only() -> None:
    """Not of a scan that is alone with its hash, and not of scans that pixels or a patient join already."""
    hash_of = [0, 0b11, 0xFF00, 0xFF00, 0xFF00FF, 0xFF00FF, 0xFFFF0000, 0xFFFFFFFF0000]
    pixels = ["a", "b", "c", "c", "d", "e", "f", "g"]
    patients = [None, None, None, None, "p", "p", None, None]
    table, looks = tables(
        [
            (pixel, f"{value:016x}", noise(row).tobytes(), patient, None)
            for row, (pixel, value, patient) in enumerate(zip(pixels, hash_of, patients, strict=True))
        ]
    )
    assert duplicate_groups(table, looks).tolist() == [0, 1, 2, 2, 3, 3, 4, 5]
    assert looks.asked == [["scan 0", "scan 1"]]


def test_rows_without_features_get_no_group() -> None:
    known = ("a", "f" * 16, FLAT, "p", None)
    assert grouped([("", "", b"", "p", None), known, (None, None, b"", "p", None), known]).tolist() == [
        -1,
        0,
        -1,
        0,
    ]
    assert grouped([(None, None, b"", None, None)]).tolist() == [-1]


@pytest.mark.parametrize(
    ("patients", "studies", "groups"),
    [
        (["p", "p", "q"], [None] * 3, [0, 0, 1]),
        ([None] * 3, ["1", "1", None], [0, 0, 1]),
        (["p", None, "q"], ["1", "1", "2"], [0, 0, 1]),  # a study of one patient brings its rows along
        (["p", "q", None], ["1", "1", "1"], [0, 1, 2]),  # a study number used twice joins no patients
        ([float("nan"), "", None], ["", None, float("nan")], [0, 1, 2]),
        ([7, "7", None], [None, None, 7], [0, 0, 1]),  # a number is its text, a patient is no study
    ],
)
def test_patient_and_study_ids_group(
    patients: list[object], studies: list[object], groups: list[int]
) -> None:
    far = ["0" * 16, "f" * 16, "0f" * 8]
    table, looks = tables([(str(row), far[row], noise(row).tobytes(), None, None) for row in range(3)])
    assert duplicate_groups(table.assign(patient=patients, study=studies), looks).tolist() == groups


WAYS = [lambda look: look, np.fliplr, np.flipud, lambda look: np.rot90(look, 2)]


def row_of(name: str, picture: np.ndarray) -> tuple[str, str, bytes, None, None]:
    picture = np.ascontiguousarray(picture)
    return name, difference_hash(picture), thumbnail(picture).tobytes(), None, None


def mirrored_rows(seed: int) -> tuple[Rows, np.ndarray]:
    """Eight faces, each three times: mirrored in some way, with some noise. And whose face a row shows.

    The last face comes twice more, without noise, so that there is something to find.
    """
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(8), 3)
    rows: Rows = []
    for face in np.repeat(faces(8, seed, 100), 3, axis=0):
        noisy = (face + generator.normal(0, generator.choice([1, 1, 20, 60]), face.shape)).clip(0, 255)
        rows.append(row_of(f"{len(rows)}", WAYS[generator.integers(4)](noisy.astype(np.uint8))))
    rows += [row_of(f"{len(rows)}", face), row_of(f"{len(rows) + 1}", np.fliplr(face))]
    return rows, np.append(owner, [7, 7])


def mirrored_brute_force(rows: Rows) -> np.ndarray:
    """The rule with mirror images, as slow as it can be said."""
    looks = [np.frombuffer(row[2], np.uint8).reshape(64, 64) for row in rows]

    def alike(hash_of_one: str, hash_of_other: str, one: np.ndarray, other: np.ndarray) -> bool:
        bits = (int(hash_of_one, 16) ^ int(hash_of_other, 16)).bit_count()
        return bits <= 2 and np.corrcoef(one.ravel(), other.ravel())[0, 1] >= 0.98

    def mirrored(one: np.ndarray, other: np.ndarray) -> bool:
        turned = [np.ascontiguousarray(way(other)) for way in WAYS[1:]]
        return any(alike(difference_hash(one), difference_hash(each), one, each) for each in turned)

    groups = np.arange(len(rows))
    for a in range(len(rows)):
        for b in range(a):
            one, other = looks[a], looks[b]
            if (
                alike(rows[a][1], rows[b][1], one, other)
                or mirrored(one, other)
                or mirrored(other, one)  # grey levels that tie are darker in neither direction
            ):
                groups[groups == groups[a]] = groups[b]
    return pd.factorize(groups)[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 8192]), st.randoms(use_true_random=False))
def test_groups_with_mirror_images_equal_brute_force(seed: int, at_once: int, random) -> None:
    rows, owner = mirrored_rows(seed)
    order = random.sample(range(len(rows)), len(rows))
    rows, owner = [rows[row] for row in order], owner[order]
    table, looks = tables(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_THUMBNAILS_LOOKED_UP", at_once)
        groups = duplicate_groups(table, looks, mirrored=True)
    assert max(map(len, looks.asked)) <= at_once
    np.testing.assert_array_equal(groups, mirrored_brute_force(rows))
    assert len(set(zip(owner, groups, strict=True))) == len(set(groups)), "two faces were joined"
    assert len(set(groups)) < len(set(duplicate_groups(table, looks)))


def test_mirror_images_of_many_copies_need_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counting(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        compared.append(len(first))
        return thumbnail_correlation(first, second)

    monkeypatch.setattr(near, "thumbnail_correlation", counting)
    (face,) = faces(1, seed=5, side=100)
    rows: Rows = [row_of(str(row), WAYS[row % 4](face)) for row in range(2_000)]
    assert set(duplicate_groups(*tables(rows), mirrored=True)) == {0}
    assert sum(compared) < 4 * len(rows)  # a comparison of each with each would be 2 million


def test_new_rows_join_mirrored_earlier_ones_and_earlier_ones_stay_apart() -> None:
    (face,) = faces(1, seed=5, side=100)
    table, looks = tables([row_of(str(number), way(face)) for number, way in enumerate(WAYS)])
    assert duplicate_groups(table[:3], looks).tolist() == [0, 1, 2]
    names = pd.Series(["a", "b", "c", None])
    assert duplicate_groups(table[:3], looks, names[:3], mirrored=True).tolist() == [0, 1, 2]
    assert duplicate_groups(table, looks, names, mirrored=True).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dhash", ["0" * 15, "x" * 16, None])
def test_malformed_hashes_are_refused(dhash: str | None) -> None:
    with pytest.raises(ValueError, match=f"16 hexadecimal characters, got {dhash!r} in row 1"):
        grouped([("a", "0" * 16, FLAT, None, None), ("b", dhash, FLAT, None, None)])


def test_conflicting_groups_are_those_with_two_labels() -> None:
    assert conflicting_groups(["a", "b", "b", "b", "a", "c"], [0, 1, 0, 1, -1, -1]).tolist() == [0]


@pytest.mark.realdata
@pytest.mark.slow
def test_real_training_half_makes_4780_groups(real_data: Path) -> None:
    from brain_mri.imaging.inspect import inspect_scan

    files = sorted((real_data / "Training").rglob("*.jpg"))
    scans = [inspect_scan(file.read_bytes()) for file in files]
    looks = Looks({scan.scan_id: scan.thumbnail for scan in scans})
    rows = pd.DataFrame(
        [(scan.scan_id, scan.pixel_hash, scan.dhash) for scan in scans],
        columns=["scan_id", "pixel_hash", "dhash"],
    )
    groups = duplicate_groups(rows.assign(patient=None, study=None), looks)
    assert len(files) == 5712
    assert groups.min() == 0
    assert groups.max() + 1 == 4780
    assert np.bincount(groups).max() == 22
    assert conflicting_groups([file.parent.name for file in files], groups).tolist() == []
    assert len({scan for asked in looks.asked for scan in asked}) < 1_700  # of 5,521 distinct scans
    groups = duplicate_groups(rows.assign(patient=None, study=None), looks, mirrored=True)
    assert groups.max() + 1 == 3376
