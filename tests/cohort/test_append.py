"""Appending: earlier scans keep their side, whatever comes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_mri.cohort.append import AppendError, extend_manifest
from brain_mri.cohort.manifest import (
    BRIDGE,
    CONFLICT,
    COPY,
    ROW_COLUMNS,
    SplitRule,
    build_manifest,
    check_manifest,
    describe_splits,
    fingerprint,
)
from brain_mri.cohort.split import SPLITS, SplitError
from tests.cohort.looks import Looks, blend, noise

LOOK = 1
RULE = SplitRule("grouped", (0.6, 0.2, 0.2), seed=1)
NOTHING_ADDED = {split: {"glioma": 0, "notumor": 0} for split in SPLITS}


class Picture(NamedTuple):
    """A hash and a look: noise of a seed, how much of another noise is blended in, left to right or not."""

    dhash: int
    seed: int
    share: float = 0.0
    mirrored: bool = False

    @property
    def thumbnail(self) -> bytes:
        look = _thumbnail(self.seed, self.share)
        return np.fliplr(np.frombuffer(look, np.uint8).reshape(64, 64)).tobytes() if self.mirrored else look


@cache
def _thumbnail(seed: int, share: float) -> bytes:
    return blend(noise(seed), noise(100), share)


class File(NamedTuple):
    """A file of a source; `content` tells bytes of one picture apart, a refused file has no picture."""

    path: str
    picture: Picture | None
    label: str = "glioma"
    patient: str | None = None
    study: str | None = None
    content: int = 0

    @property
    def scan_id(self) -> str:
        return hashlib.sha256(repr((self.picture, self.content)).encode()).hexdigest()


def unlike(number: int) -> Picture:
    """A picture that is near no other."""
    return Picture(int(np.random.default_rng(number).integers(2**63)), 0)


def source(files: Sequence[File], earlier: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`files` and `inspections`; content that `earlier` has is known and not inspected again."""
    known = set() if earlier is None else set(earlier["scan_id"])
    inspections = []
    for file in files:
        status = "known" if file.scan_id in known else "accepted" if file.picture else "quarantined"
        seen = status == "accepted"
        inspections.append(
            {
                "path": file.path,
                "scan_id": file.scan_id,
                "status": status,
                "reason": "blank" if status == "quarantined" else "",
                "bytes": 100,
                "pixel_hash": hashlib.sha256(repr(file.picture).encode()).hexdigest() if seen else "",
                "dhash": f"{file.picture.dhash:016x}" if seen else "",
                "width": 64 if seen else 0,
                "height": 64 if seen else 0,
                "mode": "L" if seen else "",
                "format": "PNG" if seen else "",
                "bit_depth": 8 if seen else 0,
                "mean_intensity": 100.5 if seen else 0.0,
            }
        )
    columns = ["path", "label", "official_split", "patient", "study"]
    listed = [(file.path, file.label, None, file.patient, file.study) for file in files]
    return pd.DataFrame(listed, columns=columns), pd.DataFrame(inspections, columns=_INSPECTION)


_INSPECTION = [
    "path", "scan_id", "status", "reason", "bytes", "pixel_hash", "dhash", "width", "height", "mode",
    "format", "bit_depth", "mean_intensity",
]  # fmt: skip

# Enough scans that are like no other, so that every class has its three groups.
FILLERS = [
    File(f"filler/{label}/{n}", unlike(1000 * place + n), label)
    for place, label in enumerate(("glioma", "notumor"), 1)
    for n in range(6)
]


def looks_of(*sources: Sequence[File]) -> Looks:
    return Looks(
        {file.scan_id: file.picture.thumbnail for files in sources for file in files if file.picture}
    )


def build(files: Sequence[File]) -> pd.DataFrame:
    return build_manifest(*source(files), RULE, looks_of(files))


def extend(
    earlier: pd.DataFrame, files: Sequence[File], *others: Sequence[File]
) -> tuple[pd.DataFrame, dict]:
    """`others` are the files of before, whose thumbnails may be asked for."""
    manifest, changes = extend_manifest(earlier, *source(files, earlier), RULE, looks_of(files, *others))
    check_manifest(manifest)
    assert json.loads(json.dumps(changes)) == changes
    added = sum(sum(classes.values()) for classes in changes["added"].values())
    assert changes["files"] == len(files)
    assert changes["known"] + added + changes["duplicates"] + sum(changes["quarantined"].values()) == len(
        files
    )
    return manifest, changes


def fates(manifest: pd.DataFrame, *paths: str) -> list[tuple[str, str]]:
    """Split of accepted rows, reason of the others."""
    rows = manifest.set_index("path").loc[list(paths)]
    return rows["split"].where(rows["status"].eq("accepted"), rows["reason"]).tolist()


def pair_on_two_sides(
    far: int = 0b1111, patients: Sequence[str | None] = (None, None)
) -> tuple[pd.DataFrame, list[File]]:
    """A manifest in which the hashes 0 and `far`, of one look, are on two sides, and its files."""
    for trial in range(50):
        ends = [
            File("end/0", Picture(0, LOOK), patient=patients[0], content=trial),
            File("end/1", Picture(far, LOOK), patient=patients[1], content=trial),
        ]
        manifest = build([*FILLERS, *ends])
        if len(set(fates(manifest, "end/0", "end/1"))) == 2:
            return manifest, [*FILLERS, *ends]
    raise AssertionError("no draw put the two on two sides")


# Chains of hashes two bits apart, looks on both sides of the threshold, several contents of one picture.
pictures = st.builds(
    lambda centre, bits, share: Picture(centre ^ ((1 << bits) - 1), 0, share),
    st.sampled_from([0, 0xFFFF << 40]),
    st.integers(0, 7),
    st.sampled_from([0.0, 0.0, 0.16, 0.3]),
)
some_files = st.lists(
    st.builds(
        File,
        st.integers(0, 20).map("{}.png".format),
        st.one_of(*[pictures] * 12, st.none()),
        st.sampled_from(["glioma"] * 15 + ["notumor"]),
        st.sampled_from([None] * 10 + ["p", "q"]),
        st.sampled_from([None] * 10 + ["1", "2"]),
        st.integers(0, 1),
    ),
    min_size=4,
    max_size=14,
    unique_by=lambda file: file.path,
)


def tied(a: pd.Series, b: pd.Series) -> bool:
    """Whether two rows are the same or nearly the same picture, or of one person; the rule, said slowly."""
    if a["pixel_hash"] == b["pixel_hash"] or (a["patient"] is not None and a["patient"] == b["patient"]):
        return True
    if a["patient"] is b["patient"] is None and a["study"] is not None and a["study"] == b["study"]:
        return True
    if (int(a["dhash"], 16) ^ int(b["dhash"], 16)).bit_count() > 2:
        return False
    x, y = (np.frombuffer(row["thumbnail"], np.uint8).astype(float) for row in (a, b))
    return bool(np.corrcoef(x, y)[0, 1] >= 0.98)


@settings(max_examples=60)
@given(some_files, some_files)
def test_earlier_scans_stay_and_no_new_one_is_tied_to_another_side(
    first: list[File], second: list[File]
) -> None:
    before = [*FILLERS, *first]
    earlier = build(before)
    manifest, _ = extend(earlier, second, before)

    rows = manifest.set_index("path")
    kept = [name for name in ROW_COLUMNS if name not in ("path", "duplicate_group")]
    pd.testing.assert_frame_equal(rows.loc[earlier["path"], kept], earlier.set_index("path")[kept])

    rows["thumbnail"] = rows["scan_id"].map(looks_of(before, second).by_id)
    accepted = rows[rows["status"] == "accepted"]
    side = accepted.groupby("duplicate_group")["split"].first()
    usable = rows[rows["duplicate_group"].notna()]
    for path, row in rows.drop(earlier["path"]).iterrows():
        if row["status"] == "accepted":
            ties = accepted[[tied(row, other) for _, other in accepted.iterrows()]]
            assert set(ties["split"]) == {row["split"]}, path
            assert set(ties["label"]) == {row["label"]}, path
        elif row["reason"] == BRIDGE:
            ties = usable[[tied(row, other) for _, other in usable.iterrows()]]
            studied = second + first
            assert ties["duplicate_group"].map(side).nunique() > 1 or any(file.study for file in studied), (
                path
            )
        elif row["reason"] == COPY:
            assert row["scan_id"] in set(accepted["scan_id"]), path


@settings(max_examples=40)
@given(some_files, some_files, st.integers(0, 2**32))
def test_order_changes_nothing_and_the_second_time_neither(
    first: list[File], second: list[File], seed: int
) -> None:
    before = [*FILLERS, *first]
    earlier = build(before)
    manifest, changes = extend(earlier, second, before)

    def shuffled(table: pd.DataFrame, offset: int) -> pd.DataFrame:
        return table.sample(frac=1, random_state=(seed + offset) % 2**32)

    files, inspections = source(second, earlier)
    other = extend_manifest(
        shuffled(earlier, 0), shuffled(files, 1), shuffled(inspections, 2), RULE, looks_of(before, second)
    )
    if changes["known"] < len(second):
        pd.testing.assert_frame_equal(other[0], manifest)
    assert other[1] == changes

    again, nothing = extend(manifest, second, before)
    pd.testing.assert_frame_equal(again, manifest)
    assert (nothing["known"], nothing["added"]) == (len(second), NOTHING_ADDED)


@settings(max_examples=30)
@given(some_files, some_files, st.integers(0, 12))
def test_in_portions_too_every_scan_keeps_its_side(first: list[File], second: list[File], share: int) -> None:
    before = [*FILLERS, *first]
    earlier = build(before)
    half, _ = extend(earlier, second[:share], before)
    whole, _ = extend(half, second[share:], before, second)
    for manifest, past in ((half, earlier), (whole, half)):
        now = manifest.set_index("path").loc[past["path"], ["status", "split"]]
        pd.testing.assert_frame_equal(now, past.set_index("path")[["status", "split"]])
    once, _ = extend(earlier, second, before)
    assert set(once["scan_id"]) == set(whole["scan_id"])
    assert fingerprint(once) == fingerprint(whole)
    assert sum(describe_splits(whole, ["glioma", "notumor"], RULE)["quarantined"].values()) == (
        whole["status"].eq("quarantined").sum()
    )


def test_ratios_hold_for_earlier_and_new_scans_together() -> None:
    first = [File(f"a/{n}", unlike(n)) for n in range(50)]
    skewed = SplitRule("grouped", (0.2, 0.4, 0.4), seed=5)
    earlier = build_manifest(*source(first), skewed, looks_of(first))
    second = [File(f"b/{n}", unlike(100 + n)) for n in range(150)]
    manifest, changes = extend(earlier, second, first)
    assert manifest["split"].value_counts().to_dict() == {"train": 120, "validation": 40, "test": 40}
    assert changes["added"] == {
        "train": {"glioma": 110},
        "validation": {"glioma": 20},
        "test": {"glioma": 20},
    }
    assert changes["earlier"] == 50


def test_the_seed_decides_the_draw_of_new_scans() -> None:
    earlier = build(FILLERS)
    second = [File(f"b/{n}", unlike(n)) for n in range(40)]
    one, again, other = (
        extend_manifest(
            earlier, *source(second, earlier), SplitRule("grouped", RULE.ratios, seed), looks_of(second)
        )[0]["split"].tolist()
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_new_scans_join_the_side_of_their_near_copies_and_people() -> None:
    earlier, before = pair_on_two_sides(patients=("p", None))
    sides = fates(earlier, "end/0", "end/1")
    second = [
        File("near", Picture(1, LOOK)),
        File("nearer", Picture(0b11111, LOOK)),
        File("person", unlike(1), patient="p"),
    ]
    manifest, changes = extend(earlier, second, before)
    assert fates(manifest, "near", "nearer", "person") == [sides[0], sides[1], sides[0]]
    assert changes["quarantined"] == {}
    groups = manifest.set_index("path")["duplicate_group"]
    assert groups["near"] == groups["person"] == groups["end/0"] != groups["nearer"]


def test_a_scan_between_two_sides_is_quarantined_and_stays_so() -> None:
    earlier, before = pair_on_two_sides()
    between = File("between", Picture(0b11, LOOK))
    manifest, changes = extend(earlier, [between], before)
    assert fates(manifest, "between") == [BRIDGE]
    assert changes["quarantined"] == {BRIDGE: 1}
    row = manifest.set_index("path").loc["between"]
    assert (row["split"], row["duplicate_group"]) == (None, None)
    # A copy of it shares its fate; what is near it alone is tied to no side.
    later = [between._replace(path="copy"), File("beside", Picture(0b10011, LOOK))]
    manifest, _ = extend(manifest, [*later, between], before, [between])
    assert fates(manifest, "between", "copy") == [BRIDGE, BRIDGE]
    assert fates(manifest, "beside")[0] in SPLITS


def test_a_mirror_image_of_two_sides_is_quarantined_where_mirror_images_count() -> None:
    earlier, before = pair_on_two_sides()
    between = File("between", Picture(0xFF00FF, LOOK, mirrored=True))
    looks = looks_of(before, [between])
    for mirrored in (False, True):
        rule = dataclasses.replace(RULE, mirrored=mirrored)
        manifest, _ = extend_manifest(earlier, *source([between], earlier), rule, looks)
        assert (fates(manifest, "between") == [BRIDGE]) == mirrored
    pd.testing.assert_frame_equal(manifest[manifest["path"] != "between"].reset_index(drop=True), earlier)


def test_of_a_chain_between_two_sides_the_later_scan_gives_way() -> None:
    """In the order of scan ids; the other joins the side that it is tied to."""
    earlier, before = pair_on_two_sides(far=0b111111)
    left, right = fates(earlier, "end/0", "end/1")
    seen = set()
    for content in range(8):
        one, two = (File(f"link/{bits}", Picture(bits, LOOK), content=content) for bits in (0b11, 0b1111))
        manifest, changes = extend(earlier, [two, one], before)
        expected = [left, BRIDGE] if one.scan_id < two.scan_id else [BRIDGE, right]
        assert fates(manifest, one.path, two.path) == expected
        assert changes["quarantined"] == {BRIDGE: 1}
        seen.add(one.scan_id < two.scan_id)
    assert seen == {True, False}


def test_a_person_on_two_sides_takes_no_further_scans() -> None:
    """Two earlier patients turn out to share a study's scan: only the new scan can give way."""
    earlier, before = pair_on_two_sides(patients=("p", "q"))
    between = [File(f"between/{n}", before[-2].picture, patient="q", content=50 + n) for n in range(3)]
    innocent = File("innocent", unlike(5), patient="q")
    manifest, _ = extend(earlier, [*between, innocent], before)
    assert fates(manifest, *(file.path for file in between)) == [BRIDGE] * 3
    assert fates(manifest, "innocent") == fates(earlier, "end/1")


def test_known_content_at_a_new_path_is_a_copy() -> None:
    earlier = build(FILLERS)
    copy = FILLERS[0]._replace(path="elsewhere")
    manifest, changes = extend(earlier, [*FILLERS, copy], FILLERS)
    rows = manifest.set_index("path")
    assert rows.loc["elsewhere", ["status", "reason", "split"]].tolist() == ["duplicate", COPY, None]
    same = ["scan_id", "duplicate_group", "pixel_hash", "dhash", "width", "mode", "mean_intensity"]
    assert rows.loc["elsewhere", same].tolist() == rows.loc[FILLERS[0].path, same].tolist()
    assert manifest.dtypes.equals(earlier.dtypes)
    assert changes == {
        "files": 13, "known": 12, "added": NOTHING_ADDED, "duplicates": 1, "quarantined": {}, "earlier": 12,
    }  # fmt: skip


def test_copies_share_the_fate_of_what_was_refused_and_contradict_by_their_label() -> None:
    first = [*FILLERS, File("blank", None), File("x", unlike(7), "glioma"), File("y", unlike(7), "notumor")]
    earlier = build(first)
    assert fates(earlier, "blank", "x", "y") == ["blank", CONFLICT, CONFLICT]
    second = [
        File("blank again", None),
        File("x again", unlike(7), "glioma"),
        FILLERS[0]._replace(path="of another class", label="notumor"),
    ]
    manifest, changes = extend(earlier, second, first)
    assert fates(manifest, *(file.path for file in second)) == ["blank", CONFLICT, CONFLICT]
    assert changes["quarantined"] == {CONFLICT: 2, "blank": 1}


def test_one_wrong_label_does_not_shut_its_group() -> None:
    earlier, before = pair_on_two_sides(patients=("p", None))
    wrong = File("wrong", unlike(500), "notumor", patient="p")
    right = File("right", unlike(501), "glioma", patient="p")
    half, _ = extend(earlier, [wrong], before)
    whole, _ = extend(half, [right], before, [wrong])
    once, _ = extend(earlier, [wrong, right], before)
    expected = [CONFLICT, *fates(earlier, "end/0")]
    assert fates(whole, "wrong", "right") == fates(once, "wrong", "right") == expected


def test_labels_that_contradict_earlier_ones_or_each_other_are_quarantined() -> None:
    first = [
        *FILLERS,
        File("a", Picture(0, LOOK)),
        File("x", Picture(1 << 40, LOOK), "glioma"),
        File("y", Picture(1 << 40, LOOK), "notumor"),
    ]
    earlier = build(first)
    side = fates(earlier, "a")
    second = [
        File("same label", Picture(1, LOOK)),
        File("other label", Picture(2, LOOK), "notumor"),
        File("near a conflict", Picture(1 << 41 | 1 << 40, LOOK)),
        File("new one", unlike(8), "glioma", content=1),
        File("new two", unlike(8), "notumor", content=2),
    ]
    manifest, _ = extend(earlier, second, first)
    assert fates(manifest, *(file.path for file in second)) == [*side, CONFLICT, CONFLICT, CONFLICT, CONFLICT]


def test_new_files_of_one_content_are_used_once() -> None:
    second = [File(path, unlike(5)) for path in ("b", "a", "c")]
    manifest, changes = extend(build(FILLERS), second, FILLERS)
    assert fates(manifest, "b", "c") == [COPY, COPY]
    assert (manifest["path"] == "a").sum() == sum(changes["added"][split]["glioma"] for split in SPLITS) == 1


def test_another_content_at_a_taken_path_is_listed_beside_it() -> None:
    earlier = build(FILLERS)
    newcomer = File(FILLERS[0].path, unlike(5))
    manifest, changes = extend(earlier, [newcomer], FILLERS)
    name = f"{newcomer.path}@{newcomer.scan_id[:12]}"
    assert set(manifest["path"]) - set(earlier["path"]) == {name}
    again, changes = extend(manifest, [newcomer, FILLERS[0]._replace(path="z")], FILLERS)
    assert set(again["path"]) - set(manifest["path"]) == {"z"}
    assert (changes["known"], changes["duplicates"]) == (1, 1)


def test_files_that_could_not_be_read_are_known_by_their_path() -> None:
    def unreadable(paths: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        files, inspections = source([File(path, None) for path in paths])
        return files, inspections.assign(scan_id="", reason="unreadable")

    earlier = build(FILLERS)
    taken = FILLERS[0].path
    manifest, changes = extend_manifest(earlier, *unreadable(["x", "y", taken]), RULE, looks_of(FILLERS))
    assert changes["quarantined"] == {"unreadable": 3}
    assert set(manifest["path"]) - set(earlier["path"]) == {"x", "y", f"{taken}@unreadable"}
    for stored in (manifest, manifest.replace({"scan_id": {"": None}})):
        again, changes = extend_manifest(stored, *unreadable(["y", "x", taken]), RULE, looks_of(FILLERS))
        pd.testing.assert_frame_equal(again, stored)
        assert changes["known"] == 3


def test_a_new_class_needs_three_groups() -> None:
    earlier = build(FILLERS)
    second = [File(f"p/{n}", unlike(n), "pituitary") for n in range(3)]
    manifest, changes = extend(earlier, second, FILLERS)
    assert {changes["added"][split]["pituitary"] for split in SPLITS} == {1}
    assert len(manifest) == len(FILLERS) + 3
    with pytest.raises(SplitError, match="'pituitary' has 2 groups of scans"):
        extend(earlier, second[:2], FILLERS)


def test_only_candidates_with_a_new_scan_are_looked_up() -> None:
    first = [
        *FILLERS,
        *(File(f"a/{n}", Picture(n, LOOK)) for n in range(3)),
        File("far", Picture(0xFF << 32, LOOK)),
    ]
    earlier = build(first)
    second = [File("near far", Picture(0xFE << 32, LOOK)), File("alone", unlike(9))]
    looks = looks_of(first, second)
    extend_manifest(earlier, *source(second, earlier), RULE, looks)
    assert {scan for asked in looks.asked for scan in asked} == {first[-1].scan_id, second[0].scan_id}


def test_what_cannot_be_appended_is_refused_with_a_remedy() -> None:
    earlier = build(FILLERS)
    files, inspections = source([File("new", unlike(5))])
    looks = looks_of(FILLERS)
    with pytest.raises(AppendError, match=r"got 'official'.*Run without ingestion.append"):
        extend_manifest(earlier, files, inspections, SplitRule("official", RULE.ratios, 1), looks)
    with pytest.raises(AppendError, match=r"no column study.*Run ingestion once without"):
        extend_manifest(earlier.drop(columns="study"), files, inspections, RULE, looks)
    with pytest.raises(AppendError, match=r"1 files are called known, but .* for instance 'new'"):
        extend_manifest(earlier, files, inspections.assign(status="known"), RULE, looks)
    newcomer = File(FILLERS[0].path, unlike(5))
    double = File(f"{newcomer.path}@{newcomer.scan_id[:12]}", unlike(6))
    with pytest.raises(AppendError, match="1 files would be listed under a name that another file has"):
        extend_manifest(earlier, *source([newcomer, double]), RULE, looks)
