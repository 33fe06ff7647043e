"""Filters that answer to bright lines: vessels, once the picture is turned to its negative."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.float32]

ORIENTATIONS = 12
"""Directions of a line that are tried, over half a turn."""

_ONE, _FIRST, _SECOND = (np.array(kernel) for kernel in ([0.0, 1, 0], [-0.5, 0, 0.5], [1.0, -2, 1]))
_BAND = 64
"""Rows that are summed up at a time: sums along lines, and their summands, stay in the processor's cache."""
_FLOOR = np.float32(1e-3)  # of a response, so that one missing part of a line does not forbid it


def local_contrast(plane: Plane, sigma: float, floor: float) -> Plane:
    """How far each pixel lies above its surroundings, in standard deviations of these.

    Args:
        plane: float32 ``(h, w)``.
        sigma: Of the Gaussian window, in pixels.
        floor: Added to the deviation, in units of the plane: where nothing varies noise is not blown up.
    """
    mean = cv2.GaussianBlur(plane, (0, 0), sigma)
    square = cv2.GaussianBlur(plane * plane, (0, 0), sigma)
    deviation = np.sqrt(np.maximum(square - mean * mean, 1))
    return np.asarray((plane - mean) / (deviation + np.float32(floor)), np.float32)


def line_response(
    plane: Plane, sigma: float, reach: int, *, ends: bool, blur: float, growth: float, step: int = 2
) -> Plane:
    """Combination of shifted filter responses (B-COSFIRE), the strongest of all orientations.

    Differences of Gaussians answer to spots of the line's width. Along a line, at distances of `step`, their
    blurred answers are multiplied: their weighted geometric mean is large only where all are. Azzopardi et
    al., "Trainable COSFIRE filters for vessel delineation with application to retinal images", Medical Image
    Analysis 19, 2015. Distances are rounded to whole pixels, and the logarithm is kept.

    Args:
        plane: float32 ``(h, w)``, lines are bright.
        sigma: Outer deviation of the difference of Gaussians, in pixels; the inner one is half of it.
        reach: Farthest distance along the line, in pixels.
        ends: Whether half lines count, as at the end of a vessel: twice the orientations.
        blur: Deviation by which an answer at distance 0 is blurred: how exact the place has to be.
        growth: Of that deviation, a pixel of distance.
        step: Distance of neighbours along the line, in pixels.

    Returns:
        float32 ``(h, w)``, natural logarithm of the response.
    """
    spots = cv2.GaussianBlur(plane, (0, 0), sigma / 2) - cv2.GaussianBlur(plane, (0, 0), sigma)
    np.maximum(spots, 0, out=spots)
    distances = range(0, reach + 1, step)
    weights = np.exp(-(np.array(distances, np.float32) ** 2) / (2 * (reach / 3) ** 2))
    weights /= weights[0] + (1 if ends else 2) * weights[1:].sum()
    answers = [
        _Shifted(
            np.log(cv2.GaussianBlur(spots, (0, 0), blur + growth * distance) + _FLOOR) * weight, distance
        )
        for distance, weight in zip(distances, weights, strict=True)
    ]
    strongest = np.full(plane.shape, -np.inf, np.float32)
    for rows in _bands(plane):
        for angle in _angles(ORIENTATIONS * (2 if ends else 1)):
            response = answers[0].along(angle, 0, rows).copy()
            for distance, answer in zip(distances[1:], answers[1:], strict=True):
                response += answer.along(angle, distance, rows)
                if not ends:
                    response += answer.along(angle, -distance, rows)
            np.maximum(strongest[rows], response, out=strongest[rows])
    return strongest


class _Shifted:
    """Views of a plane that is shifted, its rim repeated.

    Args:
        plane: float32 ``(h, w)``.
        rim: The farthest shift, in pixels.
    """

    def __init__(self, plane: Plane, rim: int) -> None:
        self._width, self._rim = plane.shape[1], rim
        padded = cv2.copyMakeBorder(plane, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
        self._padded: Plane = np.asarray(padded, np.float32)

    def along(self, angle: float, distance: float, rows: slice) -> Plane:
        """Rows of the plane as they are seen from this far in that direction, to the next whole pixel."""
        right, down = _offset(angle, distance)
        x, y = self._rim + right, self._rim + down
        return self._padded[y + rows.start : y + rows.stop, x : x + self._width]


@cache
def _offset(angle: float, distance: float) -> tuple[int, int]:
    return round(distance * np.cos(angle)), round(distance * np.sin(angle))


def _bands(plane: Plane) -> Iterator[slice]:
    height = plane.shape[0]
    for first in range(0, height, _BAND):
        yield slice(first, min(first + _BAND, height))


def _angles(count: int) -> list[float]:
    return [number * np.pi / ORIENTATIONS for number in range(count)]


def ridge_response(plane: Plane, across: float, along: float) -> Plane:
    """Matched filters for lines with a Gaussian profile, the strongest of all orientations.

    Across the line the second derivative of a Gaussian, along it a Gaussian (Chaudhuri et al., "Detection of
    Blood Vessels in Retinal Images Using Two-Dimensional Matched Filters", IEEE Transactions on Medical
    Imaging 8, 1989). The derivative is steered (Freeman and Adelson, "The Design and Use of Steerable
    Filters", IEEE PAMI 13, 1991), and smoothed along the line by shifted sums: a tenth of the work of kernels
    as large.

    Args:
        plane: float32 ``(h, w)``, lines are bright.
        across: Deviation across the line, in pixels.
        along: Deviation along the line, in pixels, larger than `across`.

    Returns:
        float32 ``(h, w)``, in units of the plane: about its height on a bright line of that width.
    """
    smooth = cv2.GaussianBlur(plane, (0, 0), across)
    xx, yy, xy = (
        cv2.sepFilter2D(smooth, cv2.CV_32F, rows, columns, borderType=cv2.BORDER_REFLECT)
        for rows, columns in ((_SECOND, _ONE), (_ONE, _SECOND), (_FIRST, _FIRST))
    )
    spread = np.sqrt(along**2 - across**2)
    step = max(round(1.4 * across), 1)
    distances = [step * number for number in range(round(2.2 * spread / step) + 1)]
    weights = np.exp(-((np.array(distances) / spread) ** 2) / 2).astype(np.float32)
    weights *= -(np.float32(across) ** 2) / (weights[0] + 2 * weights[1:].sum())
    strongest = np.full(plane.shape, -np.inf, np.float32)
    for angle in _angles(ORIENTATIONS):
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        bent = _Shifted(sine * sine * xx - (2 * sine * cosine) * xy + cosine * cosine * yy, distances[-1])
        for rows in _bands(plane):
            response = bent.along(angle, 0, rows) * weights[0]
            pair = np.empty_like(response)
            for distance, weight in zip(distances[1:], weights[1:], strict=True):
                np.add(bent.along(angle, distance, rows), bent.along(angle, -distance, rows), out=pair)
                pair *= weight
                response += pair
            np.maximum(strongest[rows], response, out=strongest[rows])
    return strongest


def line_strength(plane: Plane, length: int, window: int = 15) -> Plane:
    """How much brighter a line is than the square around it, the strongest of all orientations.

    Nguyen et al., "An effective retinal blood vessel segmentation method using multi-scale line detection",
    Pattern Recognition 46, 2013.

    Args:
        plane: float32 ``(h, w)``, lines are bright.
        length: Of the line, in pixels, odd.
        window: Side of the square, in pixels.

    Returns:
        float32 ``(h, w)``, in units of the plane.
    """
    half = length // 2
    shifted = _Shifted(plane, half)
    strongest = np.full(plane.shape, -np.inf, np.float32)
    for rows in _bands(plane):
        for angle in _angles(ORIENTATIONS):
            total = shifted.along(angle, 0, rows).copy()
            for distance in range(1, half + 1):
                total += shifted.along(angle, distance, rows)
                total += shifted.along(angle, -distance, rows)
            np.maximum(strongest[rows], total, out=strongest[rows])
    mean = cv2.blur(plane, (window, window), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(strongest / np.float32(length) - mean, np.float32)
