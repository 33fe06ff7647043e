from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from brain_mri.imaging.decode import DecodeLimits, GreyPixels, RefusedImage, decode_grey
from brain_mri.imaging.phantom import draw_phantom
from brain_mri.imaging.prepare import (
    PrepareOptions,
    crop_to_head,
    head_box,
    head_mask,
    prepare_pixels,
    prepare_scan,
)
from tests.imaging.hostile import HostileFile, encode, hostile_files, picture

ACCEPTED = [file for file in hostile_files() if not file.reason]
ALL_OPTIONS = [PrepareOptions(64, crop, clahe) for crop in (False, True) for clahe in (False, True)]


def head(height: int = 300, width: int = 400, top: int = 60, left: int = 120) -> GreyPixels:
    """A bright ellipse of 180×150 pixels, dark in the middle, in noisy air, with a label in a corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    distance = ((rows - top - 90) / 90) ** 2 + ((columns - left - 75) / 75) ** 2
    pixels = np.random.default_rng(0).integers(0, 12, (height, width)).astype(np.uint8)
    pixels[distance <= 1] = 150
    pixels[distance <= 0.2] = 40
    pixels[5:15, 5:40] = 255
    return pixels


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
def test_result_has_the_promised_form(options: PrepareOptions) -> None:
    for pixels in (head(), picture(), picture(33, 500), np.asfortranarray(picture())):
        prepared = prepare_pixels(pixels, options)
        assert (prepared.shape, prepared.dtype) == ((64, 64), np.uint8)
        assert prepared.flags.c_contiguous


@pytest.mark.parametrize(
    "file", [file for file in hostile_files() if not file.reason], ids=lambda file: file.name
)
def test_every_decodable_file_is_prepared_like_its_pixels(file: HostileFile) -> None:
    options = PrepareOptions(64, crop_to_head=True, clahe=True)
    expected = prepare_pixels(decode_grey(file.content).pixels, options)
    np.testing.assert_array_equal(prepare_scan(file.content, options), expected)


def test_areas_are_averaged() -> None:
    row = np.array([0, 90, 180], np.uint8)  # 1.5 pixels go into one: (0 + 90/2) / 1.5 and (90/2 + 180) / 1.5
    assert prepare_pixels(np.tile(row, (3, 1)), PrepareOptions(2)).tolist() == [[30, 150]] * 2


def test_enlarging_stays_between_the_neighbours() -> None:
    prepared = prepare_pixels(np.array([[0, 100], [0, 100]], np.uint8), PrepareOptions(8)).astype(int)
    assert (prepared[:, 0] == 0).all()
    assert (prepared[:, -1] == 100).all()
    assert (np.diff(prepared, axis=1) >= 0).all()


def test_prepared_size_stays_untouched() -> None:
    np.testing.assert_array_equal(prepare_pixels(picture(64, 64), PrepareOptions(64)), picture(64, 64))


def test_crop_finds_the_head_and_no_label() -> None:
    cropped = crop_to_head(head())
    assert cropped.shape == pytest.approx((180, 150), abs=12)
    assert cropped.max() < 255
    for edge in (cropped[10], cropped[-11], cropped[:, 10], cropped[:, -11]):
        assert edge.max() == 150  # a small margin, but not more


def test_crop_leaves_tight_and_headless_pictures_alone() -> None:
    tight = head(180, 150, 0, 0)
    tight[5:15, 5:40] = 0
    assert crop_to_head(tight).shape == tight.shape
    speck = np.zeros((100, 100), np.uint8)
    speck[50:55, 50:55] = 255
    assert crop_to_head(speck).shape == speck.shape
    assert crop_to_head(np.zeros((50, 50), np.uint8)).shape == (50, 50)


def test_the_head_is_told_from_the_air_with_its_cavities() -> None:
    grey = head()
    rows, columns = head_box(grey)
    row, column = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    grey[row - 8 : row + 8, column - 8 : column + 8] = 0  # as ventricles are
    mask = head_mask(grey)
    assert mask[row, column]
    outside = np.ones_like(mask)
    outside[rows, columns] = False
    assert not mask[outside].any()  # the label there either
    assert mask.sum() == pytest.approx(np.pi * 90 * 75, rel=0.1)
    assert head_mask(np.zeros((50, 50), np.uint8)).all()


def test_clahe_spreads_local_contrast() -> None:
    faint = (100 + picture(64, 64) // 16).astype(np.uint8)
    evened = prepare_pixels(faint, PrepareOptions(64, clahe=True))
    assert evened.std() > 1.5 * faint.std()


def test_refusals_and_limits_pass_through() -> None:
    with pytest.raises(RefusedImage) as refusal:
        prepare_scan(encode(np.zeros((64, 64), np.uint8), "PNG"))
    assert refusal.value.reason == "blank"
    with pytest.raises(RefusedImage):
        prepare_scan(encode(picture(), "PNG"), limits=DecodeLimits(min_side=97))


def test_senseless_size_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 0"):
        PrepareOptions(image_size=0)


def fully(content: bytes, size: int) -> GreyPixels:
    """What full decoding gives."""
    return prepare_pixels(decode_grey(content).pixels, PrepareOptions(size))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("label", ["glioma", "notumor"])
def test_scaled_decoding_stays_within_one_level_of_full_decoding(label: str, size: int) -> None:
    content = encode(cv2.resize(draw_phantom(label, seed=3).pixels, (512, 512)), "JPEG", quality=85)
    assert decode_grey(content, at_least=2 * size).pixels.shape[0] < 512  # it was scaled
    difference = np.abs(prepare_scan(content, PrepareOptions(size)).astype(int) - fully(content, size))
    assert difference.mean() <= 1
    assert np.percentile(difference, 99) <= 8


@pytest.mark.realdata
@pytest.mark.parametrize("size", [64, 112, 224])
def test_scaled_decoding_of_real_scans_stays_within_one_level(real_data: Path, size: int) -> None:
    scaled, means = 0, []
    for path in sorted(real_data.rglob("*.jpg"))[::29]:
        content = path.read_bytes()
        full = decode_grey(content).pixels
        if decode_grey(content, at_least=2 * size).pixels.shape == full.shape:
            continue
        scaled += 1
        prepared = prepare_scan(content, PrepareOptions(size)).astype(int)
        means.append(np.abs(prepared - prepare_pixels(full, PrepareOptions(size))).mean())
    assert scaled or size == 224  # hardly any scan of this set has 896 pixels a side
    assert max(means, default=0) <= 1


def test_a_side_is_never_scaled_below_twice_the_result_or_off_its_grid() -> None:
    sides = {64: 64, 127: 127, 128: 64, 130: 65, 254: 127, 256: 64, 258: 129, 512: 64, 1000: 125}
    for side, decoded in sides.items():
        content = encode(picture(side, side), "JPEG")
        assert decode_grey(content, at_least=64).pixels.shape == (decoded, decoded)


def test_contrast_that_scaling_averages_away_is_still_contrast() -> None:
    fine = np.tile(np.array([[100, 140], [140, 100]], np.uint8), (64, 64))
    content = encode(fine, "PNG")
    assert decode_grey(content).pixels.max() - decode_grey(content).pixels.min() == 40
    jpeg = encode(fine, "JPEG", quality=95)
    prepared = prepare_scan(jpeg, PrepareOptions(8), DecodeLimits(min_contrast=16))
    assert prepared.shape == (8, 8)


@pytest.mark.parametrize("options", [PrepareOptions(32, crop_to_head=True), PrepareOptions(32, clahe=True)])
def test_cropping_and_evening_out_contrast_see_all_pixels(options: PrepareOptions) -> None:
    content = encode(cv2.resize(head(), (800, 640)), "JPEG", quality=95)
    np.testing.assert_array_equal(
        prepare_scan(content, options), prepare_pixels(decode_grey(content).pixels, options)
    )
