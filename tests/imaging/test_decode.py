from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from brain_mri.imaging.decode import (
    REFUSAL_REASONS,
    DecodeLimits,
    GreyPixels,
    RefusedImage,
    decode_grey,
    stretch,
)
from tests.imaging.hostile import HostileFile, encode, hostile_files, picture, slow_jpeg, with_orientation

CORPUS = hostile_files()


def decoded_or_refused(content: bytes) -> None:
    """Whatever the content is: sound pixels or a known reason, and nothing else."""
    try:
        image = decode_grey(content)
    except RefusedImage as refusal:
        assert refusal.reason in REFUSAL_REASONS
        assert str(refusal)
    else:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.ndim == 2
        assert image.pixels.flags.c_contiguous
        assert image.pixels.min() < image.pixels.max()


def by_pillow(content: bytes) -> GreyPixels:
    """The reference: Pillow alone, turned by Pillow's own function."""
    image = Image.open(io.BytesIO(content))
    image.draft("L", None)
    return np.asarray(ImageOps.exif_transpose(image).convert("L"))


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_corpus_is_accepted_or_refused_with_the_right_reason(
    file: HostileFile, capfd: pytest.CaptureFixture[str]
) -> None:
    if file.reason:
        with pytest.raises(RefusedImage) as refusal:
            decode_grey(file.content)
        assert refusal.value.reason == file.reason
    else:
        decoded_or_refused(file.content)
        decode_grey(file.content)
    assert capfd.readouterr().err == ""


def test_corpus_covers_every_reason_that_default_limits_can_give() -> None:
    assert {file.reason for file in CORPUS} - {""} == set(REFUSAL_REASONS) - {"too_large"}


@given(st.binary(max_size=2_000))
def test_arbitrary_bytes_never_crash(content: bytes) -> None:
    decoded_or_refused(content)


@given(
    file=st.sampled_from([file for file in CORPUS if file.content]),
    changes=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
    ),
)
def test_mutated_files_never_crash(file: HostileFile, changes: list[tuple[float, bytes]]) -> None:
    content = bytearray(file.content)
    for place, change in changes:
        start = int(place * len(content))
        content[start : start + len(change)] = change
    decoded_or_refused(bytes(content))


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 2}),
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
    ],
)
def test_every_truncation_is_refused(format_name: str, options: dict[str, int]) -> None:
    content = encode(picture(), format_name, **options)
    # The last four bytes of a PNG are the checksum of its empty end chunk: no picture is lost with them.
    end = len(content) - (4 if format_name == "PNG" else 0)
    for length in [*range(0, end, max(1, end // 300)), *range(end - 30, end)]:
        with pytest.raises(RefusedImage):
            decode_grey(content[:length])


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone_alike_in_every_format(format_name: str, orientation: int) -> None:
    content = with_orientation(picture(), format_name, orientation)
    pixels = decode_grey(content).pixels
    assert pixels.shape == ((96, 120) if orientation < 5 else (120, 96))
    np.testing.assert_array_equal(pixels, by_pillow(content))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_spoil_good_pixels() -> None:
    plain = encode(picture(), "JPEG")
    broken = encode(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    np.testing.assert_array_equal(decode_grey(broken).pixels, decode_grey(plain).pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_opencv_and_pillow_decode_jpeg_to_equal_pixels(mode: str) -> None:
    colour = Image.fromarray(np.dstack([picture(), picture()[::-1], picture()[:, ::-1]])).convert(mode)
    for options in ({}, {"progressive": True}, {"subsampling": 0, "quality": 60}):
        content = encode(colour, "JPEG", **options)
        np.testing.assert_array_equal(decode_grey(content).pixels, by_pillow(content))


def test_colour_becomes_luma() -> None:
    pixels = np.zeros((40, 120, 3), np.uint8)
    for channel in range(3):
        pixels[:, 40 * channel : 40 * channel + 40, channel] = 255
    assert decode_grey(encode(pixels, "PNG")).pixels[0, ::40].tolist() == [76, 150, 29]


def test_transparency_lies_over_black() -> None:
    pixels = np.full((40, 80, 4), 255, np.uint8)
    pixels[:, :40, 3] = 0
    assert decode_grey(encode(pixels, "PNG")).pixels[0, ::40].tolist() == [0, 255]


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_fill_the_grey_range(format_name: str) -> None:
    stored = np.repeat(np.array([[100, 1_100, 2_100, 4_100]], np.uint16), 40, axis=1).repeat(40, axis=0)
    image = decode_grey(encode(stored, format_name))
    assert image.pixels[0, ::40].tolist() == [0, 64, 128, 255]
    assert image.bit_depth == 16


def test_few_levels_of_sixteen_bits_are_shifted_not_stretched() -> None:
    stored = np.repeat(np.array([[1_000, 1_100]], np.uint16), 40, axis=1).repeat(40, axis=0)
    assert decode_grey(encode(stored, "PNG")).pixels[0, ::40].tolist() == [0, 100]


def test_infinite_values_are_the_darkest() -> None:
    stored = np.repeat(np.array([[0.0, 0.5, 1.0, np.inf]], np.float32), 40, axis=1).repeat(40, axis=0)
    assert decode_grey(encode(stored, "TIFF")).pixels[0, ::40].tolist() == [0, 128, 255, 0]


def test_wide_values_are_stretched_by_the_range_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(70, 60)).astype(np.float32)
    values[:2], values[40, 3] = np.nan, -np.inf
    finite = np.isfinite(values)
    low, high = values[finite].min(), values[finite].max()
    expected = np.rint((np.where(finite, values, low).astype(np.float64) - low) * (255.0 / (high - low)))
    for at_once in (64, 2**20):
        monkeypatch.setattr("brain_mri.imaging.decode._AT_ONCE", at_once)
        np.testing.assert_allclose(stretch(values), expected, atol=1)
        np.testing.assert_array_equal(stretch(values[:, ::-1]), stretch(values)[:, ::-1])
        assert not stretch(np.full((9, 9), np.nan)).any()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (DecodeLimits(max_bytes=100), "too_large"),
        (DecodeLimits(max_pixels=96 * 120 - 1), "too_many_pixels"),
        (DecodeLimits(min_side=97), "too_small"),
        (DecodeLimits(min_contrast=216), "blank"),
    ],
)
def test_limits_are_kept_to_the_unit(limits: DecodeLimits, reason: str) -> None:
    content = encode(picture(), "PNG")
    at_the_limit = DecodeLimits(len(content), 96 * 120, 96, 215)
    assert decode_grey(content, at_the_limit).pixels.shape == (96, 120)
    with pytest.raises(RefusedImage) as refusal:
        decode_grey(content, limits)
    assert refusal.value.reason == reason


def test_limits_hold_before_the_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("decoded a JPEG that is too large"))
    with pytest.raises(RefusedImage):
        decode_grey(encode(picture(), "JPEG"), DecodeLimits(max_pixels=100))
    with pytest.raises(RefusedImage):
        decode_grey(slow_jpeg())


def test_refusal_survives_the_way_between_processes() -> None:
    refusal = pickle.loads(pickle.dumps(RefusedImage("blank", "All black.")))
    assert (refusal.reason, str(refusal)) == ("blank", "All black.")


@pytest.mark.realdata
def test_real_jpegs_decode_like_pillow(real_data: Path) -> None:
    for path in sorted(real_data.rglob("*.jpg"))[::150]:
        content = path.read_bytes()
        image = decode_grey(content)
        if image.format == "JPEG":
            np.testing.assert_array_equal(image.pixels, by_pillow(content))
