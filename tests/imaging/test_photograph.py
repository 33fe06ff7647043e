from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from brain_mri.imaging.decode import REFUSAL_REASONS, DecodeLimits, RefusedImage
from brain_mri.imaging.fundus_phantom import draw_fundus
from brain_mri.imaging.photograph import PHOTOGRAPH_LIMITS, decode_photograph
from tests.imaging.hostile import HostileFile, hostile_files

PHOTOGRAPH = draw_fundus(3, size=96).photograph


def stored(format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(stream, format_name, **options)
    return stream.getvalue()


@pytest.mark.parametrize("file", hostile_files(), ids=lambda file: file.name)
def test_every_file_is_decoded_or_refused_with_a_known_reason(file: HostileFile) -> None:
    try:
        pixels = decode_photograph(file.content)
    except RefusedImage as refusal:
        assert refusal.reason in REFUSAL_REASONS
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        assert not file.reason, "it is no scan, and is a photograph?"


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP", "JPEG"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_colours_are_those_that_were_stored_upright(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(format_name, **({} if format_name == "BMP" else {"exif": exif}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(decode_photograph(content), expected)
    if format_name != "JPEG" and orientation == 1:
        np.testing.assert_array_equal(decode_photograph(content), PHOTOGRAPH)


def test_grey_of_any_depth_becomes_three_equal_channels() -> None:
    grey = PHOTOGRAPH[..., 1]
    for image in (Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 200)):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        pixels = decode_photograph(stream.getvalue())
        assert (pixels == pixels[..., :1]).all()
        assert np.corrcoef(pixels[..., 0].ravel(), grey.ravel())[0, 1] > 0.999


def test_what_is_transparent_is_black() -> None:
    opaque = np.concatenate([PHOTOGRAPH, np.full((96, 96, 1), 255, np.uint8)], axis=2)
    opaque[:40, :, 3] = 0
    stream = io.BytesIO()
    Image.fromarray(opaque).save(stream, "PNG")
    pixels = decode_photograph(stream.getvalue())
    assert not pixels[:40].any()
    np.testing.assert_array_equal(pixels[40:], PHOTOGRAPH[40:])


def test_limits_are_those_of_photographs_and_can_be_others() -> None:
    assert PHOTOGRAPH_LIMITS.max_pixels >= 50_000_000
    with pytest.raises(RefusedImage, match="at most 100 are allowed") as refusal:
        decode_photograph(stored("PNG"), DecodeLimits(max_pixels=100))
    assert refusal.value.reason == "too_many_pixels"
