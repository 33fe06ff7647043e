"""The manifest: what became of every file, and that no group straddles splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pandera.errors
import pytest

from brain_mri.cohort.manifest import (
    COLUMNS,
    CONFLICT,
    COPY,
    ROW_COLUMNS,
    SHARED_WITH_TEST,
    SplitRule,
    TooManyRefusedError,
    build_manifest,
    check_manifest,
    check_refused_share,
    describe_splits,
    fingerprint,
)
from tests.cohort.looks import Looks, noise

RULE = SplitRule("grouped", (0.6, 0.2, 0.2), seed=1)
OFFICIAL = SplitRule("official", (0.6, 0.2, 0.2), seed=1)
CLASSES = ("glioma", "notumor")


def _inspection(path: str, picture: int, *, status: str = "accepted", reason: str = "") -> dict[str, object]:
    random = np.random.default_rng(picture)
    scan_id = hashlib.sha256(f"file {picture}".encode()).hexdigest()
    return {
        "path": path,
        "scan_id": scan_id,
        "status": status,
        "reason": reason,
        "bytes": 100,
        "pixel_hash": hashlib.sha256(f"pixels {picture}".encode()).hexdigest()
        if status == "accepted"
        else "",
        "dhash": f"{int(random.integers(0, 2**63)):016x}" if status == "accepted" else "",
        "width": 64,
        "height": 64,
        "mode": "L",
        "format": "JPEG",
        "bit_depth": 8,
        "mean_intensity": 100.0,
    }


def _no_near_copies(scan_ids: Sequence[str]) -> np.ndarray:
    raise AssertionError(f"No scan here has a near hash, and yet thumbnails were looked up: {scan_ids}.")


def _build(files: pd.DataFrame, inspections: pd.DataFrame, rule: SplitRule) -> pd.DataFrame:
    return build_manifest(files, inspections, rule, _no_near_copies)


def _cohort(
    extra: Sequence[tuple[str, str, int]] = (), **columns: list[str | None]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        (f"{label}/{n}.jpg", label, n + 100 * index) for index, label in enumerate(CLASSES) for n in range(20)
    ]
    rows += extra
    files = pd.DataFrame([(path, label) for path, label, _ in rows], columns=["path", "label"])
    files = files.assign(**{"official_split": None, "patient": None, "study": None, **columns})
    return files, pd.DataFrame([_inspection(path, picture) for path, _, picture in rows])


def test_every_file_gets_a_row_and_every_accepted_scan_a_split() -> None:
    files, inspections = _cohort()
    manifest = _build(files, inspections, RULE)
    assert tuple(manifest.columns) == ROW_COLUMNS
    assert manifest["path"].tolist() == sorted(files["path"])
    assert manifest["split"].value_counts().to_dict() == {"train": 24, "validation": 8, "test": 8}
    check_manifest(manifest)


def test_the_validator_takes_a_manifest_with_thumbnails_and_one_without() -> None:
    manifest = _build(*_cohort(), RULE)
    check_manifest(manifest)
    check_manifest(manifest.assign(thumbnail=bytes(4096))[list(COLUMNS)])
    with pytest.raises(pandera.errors.SchemaErrors, match="study"):
        check_manifest(manifest.drop(columns="study"))


def test_near_copies_stay_together() -> None:
    files, inspections = _cohort([("glioma/zz.jpg", "glioma", 500)])
    inspections.loc[40, "dhash"] = inspections.loc[3, "dhash"]
    looks = Looks(dict.fromkeys(inspections.loc[[3, 40], "scan_id"], noise(1).tobytes()))
    manifest = build_manifest(files, inspections, RULE, looks).set_index("path")
    near = manifest.loc[["glioma/3.jpg", "glioma/zz.jpg"]]
    assert near["status"].tolist() == ["accepted", "accepted"]
    assert near["duplicate_group"].nunique() == near["split"].nunique() == 1


def test_the_order_of_files_decides_nothing() -> None:
    files, inspections = _cohort()
    shuffled = _build(files.sample(frac=1, random_state=1), inspections.sample(frac=1, random_state=2), RULE)
    pd.testing.assert_frame_equal(shuffled, _build(files, inspections, RULE))


def test_exact_copies_are_kept_once() -> None:
    manifest = _build(*_cohort([("glioma/zz.jpg", "glioma", 3)]), RULE).set_index("path")
    assert manifest.loc["glioma/zz.jpg", ["status", "reason", "split"]].tolist() == ["duplicate", COPY, None]
    assert manifest.loc["glioma/3.jpg", "status"] == "accepted"
    assert manifest.loc["glioma/3.jpg", "duplicate_group"] == manifest.loc["glioma/zz.jpg", "duplicate_group"]
    check_manifest(manifest.reset_index())


def test_a_group_with_two_labels_is_quarantined_whole() -> None:
    manifest = _build(*_cohort([("notumor/zz.jpg", "notumor", 3)]), RULE).set_index("path")
    for path in ("glioma/3.jpg", "notumor/zz.jpg"):
        assert manifest.loc[path, ["status", "reason", "split"]].tolist() == ["quarantined", CONFLICT, None]
    assert (manifest["status"] == "quarantined").sum() == 2


def test_scans_of_one_patient_stay_together() -> None:
    patients = [f"patient {n // 4}" for n in range(40)]
    manifest = _build(*_cohort(patient=patients), SplitRule("grouped", (0.4, 0.3, 0.3), 1))
    assert manifest["duplicate_group"].nunique() == 10
    assert manifest.groupby("patient")["split"].nunique().max() == 1


def test_training_scans_that_reach_into_the_official_test_half_are_moved_out() -> None:
    extra = [("test/glioma/leak.jpg", "glioma", 3)]
    official = [*(["train"] * 16 + ["test"] * 4) * 2, "test"]
    manifest = _build(*_cohort(extra, official_split=official), OFFICIAL).set_index("path")
    # The scan lies in both halves: its copy in the test half decides, so training never sees it.
    assert manifest.loc["glioma/3.jpg", "split"] == "test"
    assert manifest.loc["test/glioma/leak.jpg", "status"] == "duplicate"
    near = _cohort(extra, official_split=official)
    changed = near[1].set_index("path")
    changed.loc["test/glioma/leak.jpg", "scan_id"] = "f" * 64  # other bytes, the same pixels
    manifest = _build(near[0], changed.reset_index(), OFFICIAL).set_index("path")
    assert manifest.loc["glioma/3.jpg", ["status", "reason", "split"]].tolist() == [
        "duplicate",
        SHARED_WITH_TEST,
        None,
    ]
    assert manifest.loc["test/glioma/leak.jpg", "split"] == "test"
    assert describe_splits(manifest.reset_index(), CLASSES, OFFICIAL)["shared_with_official_test"] == 1
    check_manifest(manifest.reset_index())


def test_the_validator_refuses_a_group_on_two_sides() -> None:
    manifest = _build(*_cohort(), RULE)
    sides = manifest.groupby("split").head(1).index[:2]
    manifest.loc[sides, "duplicate_group"] = "one group"
    with pytest.raises(pandera.errors.SchemaErrors, match="no_group_straddles_splits"):
        check_manifest(manifest)


def test_the_validator_refuses_a_scan_that_is_used_twice_and_rows_without_split() -> None:
    manifest = _build(*_cohort(), RULE)
    twice = manifest.copy()
    twice.loc[1, "scan_id"] = twice.loc[0, "scan_id"]
    with pytest.raises(pandera.errors.SchemaErrors, match="a_scan_is_accepted_once"):
        check_manifest(twice)
    manifest.loc[0, "split"] = None
    with pytest.raises(pandera.errors.SchemaErrors, match="accepted_rows_and_only_they_have_a_split"):
        check_manifest(manifest)


def test_too_many_refusals_stop_with_their_reasons() -> None:
    inspections = pd.DataFrame(
        [_inspection("a.jpg", 1)]
        + [_inspection(f"{n}.jpg", n, status="quarantined", reason="blank") for n in range(3)]
    )
    check_refused_share(inspections, 0.75)
    with pytest.raises(
        TooManyRefusedError, match=r"3 of 4 files were refused \(75%; allowed are 50%\): blank 3"
    ):
        check_refused_share(inspections, 0.5)


def test_counts_and_fingerprint() -> None:
    files, inspections = _cohort([("glioma/zz.jpg", "glioma", 3)])
    manifest = _build(files, inspections, RULE)
    summary = describe_splits(manifest, CLASSES, RULE)
    assert summary["counts"]["train"] == {"glioma": 12, "notumor": 12}
    assert summary["groups"] == {"count": 40, "largest": 1, "with_near_copies": 0}
    assert (summary["duplicates"], summary["quarantined"]) == (1, {})
    assert fingerprint(manifest) == fingerprint(manifest.sample(frac=1, random_state=1))
    assert fingerprint(manifest) != fingerprint(manifest.iloc[1:])
