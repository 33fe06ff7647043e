"""Photographs of the retina: their field of view, and a grey picture of it with even contrast."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import GreyPixels, RefusedImage
from brain_mri.imaging.photograph import ColourPixels

Field: TypeAlias = npt.NDArray[np.bool_]
Plane: TypeAlias = npt.NDArray[np.float32]

DARK = 0.15
"""Share of the bright parts' brightness: surroundings are darker, save for noise."""

CLIP, TILES = 2.0, 8
"""Of the equalisation: limit of the contrast in multiples of an even histogram's bin, tiles a side."""

_SEARCHED = 512  # pixels of the longer side at which the field is looked for
_SMALLEST = 0.05  # of the picture
_WINDOWS = (1.5, 3, 6, 12)  # deviations, in pixels
_NEAR = 0.05  # share of a window that lies inside


def field_of_view(photograph: ColourPixels, dark: float = DARK) -> Field:
    """Find what the camera saw of the retina: the bright disc in dark surroundings.

    It is the convex hull of the largest bright piece, looked for in a small copy, in whatever channel is
    brightest (retinas are red). A picture that is bright everywhere is all field.

    Args:
        photograph: uint8 ``(h, w, 3)``, in [0, 255].
        dark: What is darker than this share of the brightness of the bright parts, their 95th percentile, is
            outside; in (0, 1).

    Returns:
        bool ``(h, w)``.

    Raises:
        RefusedImage: There is no bright piece that takes a twentieth of the picture.

    Example:
        >>> field_of_view(np.full((64, 64, 3), 200, np.uint8)).all()
        np.True_
    """
    height, width = photograph.shape[:2]
    shrink = min(1.0, _SEARCHED / max(height, width))
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    brightness = cv2.medianBlur(np.ascontiguousarray(small.max(axis=2)), 5)
    bright = (brightness > dark * float(np.percentile(brightness, 95))).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < _SMALLEST * bright.size:
        raise RefusedImage(
            "no_field_of_view",
            "There is no bright disc in dark surroundings, as photographs of the retina show it.",
        )
    piece = (labels == 1 + int(areas.argmax())).astype(np.uint8)
    outlines, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    field = np.zeros(piece.shape, np.uint8)
    cv2.fillConvexPoly(field, hull, 1)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def field_diameter(field: Field) -> int:
    """The longer side of the box around a field of view, in pixels."""
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    return int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1


def grow_field(plane: Plane, field: Field) -> Plane:
    """Continue a picture beyond the rim of its field of view, so that filters see no edge there.

    Pixels outside get the mean of those inside that are near, by ever wider windows (normalized convolution:
    Knutsson and Westin, CVPR 1993), and what is farther out the mean of the field.

    Args:
        plane: float32 ``(h, w)``.
        field: bool ``(h, w)``; its outermost two pixels are not trusted.

    Returns:
        float32 ``(h, w)``, unchanged inside.
    """
    known = cv2.erode(field.astype(np.float32), np.ones((3, 3), np.uint8), iterations=2, borderValue=0)
    grown = plane * known
    for sigma in _WINDOWS:
        weight = cv2.GaussianBlur(known, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        mean = cv2.GaussianBlur(grown, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        near = (known == 0) & (weight > _NEAR)
        grown[near] = mean[near] / weight[near]
        known[near] = 1
    grown[known == 0] = plane[field].mean()
    return grown


def enhance(photograph: ColourPixels, field: Field, clip: float = CLIP, tiles: int = TILES) -> GreyPixels:
    """Make a grey picture with even contrast: contrast-limited equalisation of the green channel.

    Vessels stand out most in green, since blood absorbs it. Equalised by tiles (Zuiderveld, "Contrast Limited
    Adaptive Histogram Equalization", Graphics Gems IV, 1994); outside the field it is black.

    Args:
        photograph: uint8 ``(h, w, 3)``, in [0, 255].
        field: bool ``(h, w)``.
        clip: Limit of the contrast, in multiples of an even histogram's bin.
        tiles: A side.

    Returns:
        uint8 ``(h, w)``, in [0, 255].
    """
    green = photograph[..., 1].copy()
    green[~field] = round(float(green[field].mean()))  # else tiles at the rim are equalised against black
    even = cv2.createCLAHE(clip, (tiles, tiles)).apply(green)
    even[~field] = 0
    return np.asarray(even, np.uint8)
