"""Photographs of the retina: colours, from bytes of an image file, by the checks that scans go through."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import (
    WIDE_MODES,
    DecodeLimits,
    RefusedImage,
    blank,
    decode_jpeg,
    is_plain_jpeg,
    load_pillow,
    opened,
    orientation_of,
    stretch,
    upright,
)

ColourPixels: TypeAlias = npt.NDArray[np.uint8]

PHOTOGRAPH_LIMITS = DecodeLimits(max_bytes=256 * 2**20, max_pixels=100_000_000, min_side=64)
"""Fundus cameras take up to about 50 million pixels."""


def decode_photograph(content: bytes, limits: DecodeLimits = PHOTOGRAPH_LIMITS) -> ColourPixels:
    """Decode an image file to upright 8-bit colours, or refuse it.

    Grey images become three equal channels. Transparency is laid over black, the surroundings of the field of
    view. Grey of more than 8 bits is stretched from its own lowest and highest value; colour of 16 bits keeps
    its high byte.

    Args:
        content: The whole file.
        limits: What to refuse; checked before decoding wherever the header tells.

    Returns:
        uint8 ``(height, width, 3)``, red, green, blue, in [0, 255].

    Raises:
        RefusedImage: Whatever is wrong with the content; nothing else is raised because of it.
        MemoryError: The machine is short of memory.

    Example:
        >>> decode_photograph(Path("21_training.tif").read_bytes()).shape  # doctest: +SKIP
        (584, 565, 3)
    """
    with opened(content, limits) as image:
        width, height = image.size
        if is_plain_jpeg(image):
            from_exif = orientation_of(image)
            pixels = decode_jpeg(content, cv2.IMREAD_COLOR_RGB)
        else:
            loaded, from_exif = load_pillow(image, content)
            if loaded.mode in WIDE_MODES:
                pixels = np.repeat(stretch(np.asarray(loaded))[..., np.newaxis], 3, axis=2)
            else:
                pixels = np.asarray(loaded.convert("RGB"), np.uint8)
        if pixels.shape[:2] != (height, width):
            raise RefusedImage(
                "damaged",
                f"The header promises {width}×{height} pixels, decoding gave {pixels.shape[1::-1]}.",
            )
        pixels = np.ascontiguousarray(upright(pixels, from_exif))
        darkest, brightest = int(pixels.min()), int(pixels.max())
        if brightest - darkest < limits.min_contrast:
            raise blank(darkest, brightest, limits)
        return pixels
