from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brain_mri.cohort.groups import conflicting_groups, duplicate_groups
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.inspect import Inspection, difference_hash, inspect_scan, pixel_hash, thumbnail
from tests.imaging.hostile import HostileFile, encode, hostile_files, picture, with_orientation


@pytest.mark.parametrize("file", hostile_files(), ids=lambda file: file.name)
def test_any_file_gets_an_inspection(file: HostileFile) -> None:
    inspection = inspect_scan(file.content)
    assert inspection.reason == file.reason
    assert inspection.status == ("quarantined" if file.reason else "accepted")
    assert inspection.scan_id == hashlib.sha256(file.content).hexdigest()
    assert inspection.bytes == len(file.content)
    assert len(inspection.thumbnail) == (0 if file.reason else 64 * 64)
    assert len(inspection.dhash) == (0 if file.reason else 16)


def test_inspection_tells_what_the_file_is() -> None:
    grey = picture()
    content = with_orientation(grey, "PNG", 6)
    inspection = inspect_scan(content)
    assert (inspection.width, inspection.height) == (96, 120)  # upright
    assert (inspection.mode, inspection.format, inspection.bit_depth) == ("L", "PNG", 8)
    assert inspection.mean_intensity == pytest.approx(grey.mean())


def test_limits_reach_the_decoder() -> None:
    assert inspect_scan(encode(picture(), "PNG"), DecodeLimits(min_side=97)).reason == "too_small"


def test_copies_in_other_lossless_formats_have_one_pixel_hash() -> None:
    inspections = [inspect_scan(encode(picture(), name)) for name in ("PNG", "BMP", "TIFF")]
    assert len({inspection.pixel_hash for inspection in inspections}) == 1
    assert len({inspection.scan_id for inspection in inspections}) == 3


def test_pixel_hash_of_known_pixels() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    # printf '2x3:\0\1\2\3\4\5' | sha256sum
    known = "88da4b8cee4b0564cbb806c59b2c2fdbcab8f94693593fb55f108d0640c4ab75"
    assert pixel_hash(pixels) == known
    assert pixel_hash(np.asfortranarray(pixels)) == known
    assert pixel_hash(pixels.reshape(3, 2)) != known


def test_difference_hash_of_known_pixels() -> None:
    levels = np.full((8, 9), 100, np.uint8)  # equal neighbours: no bit
    levels[0] = np.arange(9) * 10  # brighter and brighter: all bits of the first row
    levels[1] = levels[0, ::-1]  # darker and darker: none
    levels[2, 1:] = 200  # one step up at the left: the row's highest bit
    levels[7, 8] = 200  # one step up at the right: the very last bit
    blocks = levels.repeat(16, axis=0).repeat(10, axis=1)
    assert difference_hash(levels) == difference_hash(blocks) == "ff00800000000001"


def test_thumbnail_averages_areas() -> None:
    pixels = np.zeros((128, 192), np.uint8)
    pixels[::2, ::3] = 120  # one of the 2×3 pixels behind each pixel of the thumbnail
    np.testing.assert_array_equal(thumbnail(pixels), np.full((64, 64), 20))


def _inspect_file(path: Path) -> Inspection:
    return inspect_scan(path.read_bytes())


@pytest.mark.realdata
@pytest.mark.slow
def test_real_scans_have_the_known_copies_and_groups(real_data: Path) -> None:
    files = sorted((real_data / "Training").rglob("*.jpg"))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        found = list(processes.map(_inspect_file, files, chunksize=100))
    assert {inspection.status for inspection in found} == {"accepted"}
    assert len(found) - len({inspection.scan_id for inspection in found}) == 191
    assert len({inspection.pixel_hash for inspection in found}) == 5_505
    assert len({(inspection.width, inspection.height) for inspection in found}) == 382
    looks = {inspection.scan_id: np.frombuffer(inspection.thumbnail, np.uint8) for inspection in found}
    rows = pd.DataFrame(map(vars, found))[["scan_id", "pixel_hash", "dhash"]].assign(patient=None, study=None)
    groups = duplicate_groups(rows, lambda ids: np.stack([looks[scan_id] for scan_id in ids]))
    assert len(set(groups)) == 4_780
    assert np.bincount(groups).max() == 22
    assert len(conflicting_groups([file.parent.name for file in files], groups)) == 0
