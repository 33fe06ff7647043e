"""Filters that answer to bright lines: vessels, once the picture is turned to its negative."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.float32]

ORIENTATIONS = 12
"""Directions of a line that are tried, over half a turn."""

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
    height, width = plane.shape
    spots = cv2.GaussianBlur(plane, (0, 0), sigma / 2) - cv2.GaussianBlur(plane, (0, 0), sigma)
    np.maximum(spots, 0, out=spots)
    distances = range(0, reach + 1, step)
    weights = np.exp(-(np.array(distances, np.float32) ** 2) / (2 * (reach / 3) ** 2))
    weights /= weights[0] + (1 if ends else 2) * weights[1:].sum()
    rim = reach + 1
    answers = [
        cv2.copyMakeBorder(
            np.log(cv2.GaussianBlur(spots, (0, 0), blur + growth * distance) + _FLOOR) * weight,
            rim, rim, rim, rim, cv2.BORDER_REPLICATE,
        )
        for distance, weight in zip(distances, weights, strict=True)
    ]  # fmt: skip

    def shifted(answer: Plane, x: int, y: int) -> Plane:
        return answer[rim + y : rim + y + height, rim + x : rim + x + width]

    strongest = np.full(plane.shape, -np.inf, np.float32)
    for number in range(ORIENTATIONS * (2 if ends else 1)):
        angle = number * np.pi / ORIENTATIONS
        response = shifted(answers[0], 0, 0).copy()
        for distance, answer in zip(distances[1:], answers[1:], strict=True):
            x, y = round(distance * np.cos(angle)), round(distance * np.sin(angle))
            response += shifted(answer, x, y)
            if not ends:
                response += shifted(answer, -x, -y)
        np.maximum(strongest, response, out=strongest)
    return strongest


def ridge_response(plane: Plane, across: float, along: float) -> Plane:
    """Matched filters for lines with a Gaussian profile, the strongest of all orientations.

    Across the line the second derivative of a Gaussian, along it a Gaussian (Chaudhuri et al., "Detection of
    Blood Vessels in Retinal Images Using Two-Dimensional Matched Filters", IEEE Transactions on Medical
    Imaging 8, 1989).

    Args:
        plane: float32 ``(h, w)``, lines are bright.
        across: Deviation across the line, in pixels.
        along: Deviation along the line, in pixels.

    Returns:
        float32 ``(h, w)``, in units of the plane.
    """
    strongest = np.full(plane.shape, -np.inf, np.float32)
    for kernel in _ridge_kernels(across, along):
        response = cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
        np.maximum(strongest, response, out=strongest)
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
    strongest = np.full(plane.shape, -np.inf, np.float32)
    for kernel in _line_kernels(length):
        response = cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
        np.maximum(strongest, response, out=strongest)
    return strongest - cv2.blur(plane, (window, window), borderType=cv2.BORDER_REFLECT)


@cache
def _line_kernels(length: int) -> tuple[Plane, ...]:
    kernels = []
    for number in range(ORIENTATIONS):
        angle = number * np.pi / ORIENTATIONS
        kernel = np.zeros((length + 2, length + 2), np.float32)
        along = (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
        middle = (length + 1) / 2
        first, last = (np.rint((middle + way * along) * 16).astype(int).tolist() for way in (-1, 1))
        cv2.line(kernel, first, last, 1.0, 1, cv2.LINE_AA, 4)
        kernels.append(kernel / kernel.sum())
    return tuple(kernels)


@cache
def _ridge_kernels(across: float, along: float) -> tuple[Plane, ...]:
    half = int(np.ceil(3 * max(across, along)))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    kernels = []
    for number in range(ORIENTATIONS):
        angle = number * np.pi / ORIENTATIONS
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        kernel = (1 - (v / across) ** 2) * np.exp(-((v / across) ** 2) / 2 - (u / along) ** 2 / 2)
        kernel -= kernel.mean()
        kernels.append((kernel / np.abs(kernel).sum()).astype(np.float32))
    return tuple(kernels)
