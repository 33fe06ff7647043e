"""One pass over a scan's bytes: is it usable, what is it, and what must be known to find its copies."""

from __future__ import annotations

import builtins
import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from brain_mri.imaging.decode import DEFAULT_LIMITS, DecodeLimits, GreyPixels, RefusedImage, decode_grey
from brain_mri.imaging.resize import area_resize

THUMBNAIL_SIDE = 64


@dataclass(frozen=True)
class Inspection:
    """What ingestion records about one file; everything after `bytes` is empty or zero for a refused one.

    Attributes:
        scan_id: sha256 of the content, 64 hex digits.
        status: `accepted` or `quarantined`.
        reason: why it was refused, a key of `decode.REFUSAL_REASONS`; empty when accepted.
        bytes: length of the file.
        pixel_hash: sha256 of the size and the decoded grey pixels, 64 hex digits: equal for one picture in
            two lossless formats.
        dhash: difference hash of the picture, 16 hex digits; see `difference_hash`.
        thumbnail: 64×64 grey levels, row by row, area-averaged.
        width: in pixels, of the upright picture (after the EXIF orientation).
        height: likewise.
        mode: stored colour mode in Pillow's words.
        format: file format in Pillow's words.
        bit_depth: stored bits per sample.
        mean_intensity: mean grey level, 0 to 255.
    """

    scan_id: str
    status: str
    reason: str
    bytes: int
    pixel_hash: str = ""
    dhash: str = ""
    thumbnail: builtins.bytes = b""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    bit_depth: int = 0
    mean_intensity: float = 0.0


def inspect_scan(content: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> Inspection:
    """Inspect the content of one file; it may be anything.

    Args:
        content: the whole file.
        limits: what to quarantine.

    Returns:
        The inspection; a refused file is one with status `quarantined`, never an exception.

    Example:
        >>> inspect_scan(b"no picture").reason
        'not_an_image'
    """
    scan_id = hashlib.sha256(content).hexdigest()
    try:
        image = decode_grey(content, limits)
    except RefusedImage as refusal:
        return Inspection(scan_id, "quarantined", refusal.reason, len(content))
    height, width = image.pixels.shape
    return Inspection(
        scan_id=scan_id,
        status="accepted",
        reason="",
        bytes=len(content),
        pixel_hash=pixel_hash(image.pixels),
        dhash=difference_hash(image.pixels),
        thumbnail=thumbnail(image.pixels).tobytes(),
        width=width,
        height=height,
        mode=image.mode,
        format=image.format,
        bit_depth=image.bit_depth,
        mean_intensity=float(cv2.mean(image.pixels)[0]),
    )


def pixel_hash(pixels: GreyPixels) -> str:
    """Sha256 of `<height>x<width>:` and the uint8 (height, width) pixels row by row, as 64 hex digits."""
    height, width = pixels.shape
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def difference_hash(pixels: GreyPixels) -> str:
    """Difference hash (dHash) of uint8 (height, width) pixels, as 16 hex digits.

    The picture is area-averaged to 8 rows of 9 grey levels; a bit is set where a level is darker than its
    right neighbour, row by row, the first bit the highest. Pictures that look alike differ in few bits
    (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013).
    """
    small = area_resize(pixels, 9, 8)
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes().hex()


def thumbnail(pixels: GreyPixels) -> GreyPixels:
    """Area-average uint8 (height, width) pixels to uint8 (64, 64), whatever the aspect ratio."""
    return area_resize(pixels, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
