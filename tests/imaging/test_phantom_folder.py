"""What a phantom folder promises: the same bytes for one seed, faults of real folders, no data lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from brain_mri.imaging.inspect import Inspection, inspect_scan
from brain_mri.imaging.phantom import MARKER_NAME, PHANTOM_CLASSES, plan_files, write_phantom_folder
from brain_mri.imaging.phantom.folder import PlannedFile, encode_file

DAMAGES = {"truncated", "empty", "text", "blank", "tiny"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def inspected(planned: PlannedFile) -> Inspection:
    return inspect_scan(encode_file(planned, seed=5))


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    write_phantom_folder(tmp_path / "alone", images=40, seed=5, processes=1)
    write_phantom_folder(tmp_path / "shared", images=40, seed=5, processes=2)
    write_phantom_folder(tmp_path / "other", images=40, seed=6, processes=1)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
    assert contents(tmp_path / "alone") != contents(tmp_path / "other")


def test_the_summary_counts_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    summary = write_phantom_folder(folder, images=60, seed=5, processes=1)
    marker = json.loads((folder / MARKER_NAME).read_text())
    assert marker["synthetic"] is True
    assert (marker["images"], marker["seed"], marker["classes"]) == (60, 5, summary.classes)
    assert summary.classes == {label: len(list((folder / label).glob("*.jpg"))) for label in PHANTOM_CLASSES}
    assert sum(summary.classes.values()) == 60
    found = Counter(content for name, content in contents(folder).items() if name.endswith(".jpg"))
    assert sum(count - 1 for content, count in found.items() if content) == summary.exact_copies == 1
    assert summary.near_copies == 1
    assert sum(summary.damaged.values()) == 1


def test_a_plan_is_uneven_and_has_a_few_of_every_fault() -> None:
    plan = plan_files(1000, seed=5)
    labels = Counter(planned.label for planned in plan)
    assert max(labels.values()) > 1.3 * min(labels.values())
    kinds = Counter(planned.kind for planned in plan)
    assert set(kinds) == {"drawn", "exact_copy", "near_copy"} | DAMAGES
    assert 950 > kinds["drawn"] > 900
    assert all(10 <= kinds[kind] <= 30 for kind in ("exact_copy", "near_copy"))
    assert len({planned.name for planned in plan}) == 1000


def test_damaged_files_are_refused_and_all_others_accepted() -> None:
    plan = plan_files(1000, seed=5)
    reasons = {planned.kind: set() for planned in plan if planned.kind in DAMAGES}  # type: dict[str, set[str]]
    for planned in plan:
        if planned.kind in DAMAGES:
            reasons[planned.kind].add(inspected(planned).reason)
    assert all(len(found) == 1 and found != {""} for found in reasons.values()), reasons
    assert all(
        inspected(planned).status == "accepted" for planned in plan[:40] if planned.kind not in DAMAGES
    )


def test_near_copies_meet_the_rule_for_duplicates_without_being_equal() -> None:
    plan = plan_files(1000, seed=5)
    copies = [planned for planned in plan if planned.kind == "near_copy"]
    assert copies
    for copy in copies:
        first, second = inspected(plan[copy.original]), inspected(copy)
        assert first.pixel_hash != second.pixel_hash
        assert (int(first.dhash, 16) ^ int(second.dhash, 16)).bit_count() <= 2
        thumbnails = [np.frombuffer(scan.thumbnail, np.uint8).astype(float) for scan in (first, second)]
        assert np.corrcoef(thumbnails)[0, 1] >= 0.98


def test_sizes_and_modes_vary(tmp_path: Path) -> None:
    scans = [inspected(planned) for planned in plan_files(1000, seed=5)[::25] if planned.kind == "drawn"]
    assert {scan.mode for scan in scans} == {"L", "RGB"}
    assert len({(scan.height, scan.width) for scan in scans}) > 10


def test_a_finished_folder_is_used_again_and_any_other_drawn_anew(tmp_path: Path) -> None:
    write_phantom_folder(tmp_path, images=8, seed=5)
    complete = contents(tmp_path)
    some = next((tmp_path / "glioma").glob("*.jpg"))
    before = some.stat().st_mtime_ns
    write_phantom_folder(tmp_path, images=8, seed=5)
    assert some.stat().st_mtime_ns == before

    (tmp_path / MARKER_NAME).rename(tmp_path / f"{MARKER_NAME}.unfinished")
    some.write_bytes(b"half")
    write_phantom_folder(tmp_path, images=8, seed=5)
    assert contents(tmp_path) == complete

    write_phantom_folder(tmp_path, images=9, seed=6)
    assert len(list(tmp_path.rglob("*.jpg"))) == 9


def test_nobodys_data_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "glioma").mkdir()
    scan = tmp_path / "glioma" / "patient.jpg"
    cv2.imwrite(str(scan), np.zeros((64, 64), np.uint8))
    with pytest.raises(FileExistsError, match="may be somebody's data"):
        write_phantom_folder(tmp_path, images=8, seed=5)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["patient.jpg"]


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 images, but 3"):
        plan_files(3, seed=1)
