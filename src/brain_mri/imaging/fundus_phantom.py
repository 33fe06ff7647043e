"""Synthetic photographs of the retina, drawn from a seed: a vessel tree, the disc, the macula, and lesions.

They show that the pipeline works where there is no data. They look like retinas to filters, not to doctors.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.fundus import Field
from brain_mri.imaging.phantom.pen import smooth_noise
from brain_mri.imaging.photograph import ColourPixels

GRADES = ("none", "mild", "severe")
"""Of diabetic retinopathy as it is drawn: no lesions; microaneurysms; haemorrhages and exudates with them."""

_RETINA = np.array([172.0, 84.0, 40.0])
_BLOOD = np.array([-62.0, -48.0, -18.0])
_EXUDATE = np.array([60.0, 90.0, 40.0])
_SUBPIXEL = 4


class FundusPhantom(NamedTuple):
    """A drawn retina with what is true of it.

    Attributes:
        photograph: uint8 ``(size, size, 3)``, in [0, 255].
        vessels: Where vessels were drawn, bool ``(size, size)``.
        field: Its field of view, bool ``(size, size)``.
        lesions: How many were drawn.
    """

    photograph: ColourPixels
    vessels: Field
    field: Field
    lesions: int


def draw_fundus(seed: int, size: int = 512, grade: str = "none") -> FundusPhantom:
    """Draw a synthetic photograph of a retina.

    Args:
        seed: The same seed draws the same picture.
        size: Of a side, in pixels; at least 64.
        grade: One of ``GRADES``.

    Raises:
        ValueError: A size or grade that cannot be drawn.

    Example:
        >>> draw_fundus(1, size=64).photograph.shape
        (64, 64, 3)
    """
    if size < 64 or grade not in GRADES:
        raise ValueError(f"Cannot draw size={size}, grade={grade!r}: 64 or more, one of {', '.join(GRADES)}.")
    rng = np.random.default_rng((seed, size, GRADES.index(grade)))
    field = _disc(size, (0.5, 0.5), 0.48) > 0.5
    side = rng.choice((-1.0, 1.0))  # which eye
    disc, macula = (0.5 + side * 0.27, 0.5 + rng.uniform(-0.03, 0.03)), (0.5 - side * 0.1, 0.52)
    shade = 1 + 0.12 * smooth_noise(rng, size, 3) - 0.35 * _distance(size, (0.5, 0.5)) ** 2
    picture = _RETINA * shade[..., np.newaxis].astype(np.float64)
    picture *= 1 - 0.35 * np.exp(-((_distance(size, macula) / 0.1) ** 2))[..., np.newaxis]
    picture += np.array([70.0, 95.0, 60.0]) * _disc(size, disc, rng.uniform(0.07, 0.085))[..., np.newaxis]
    depth = np.zeros((size, size), np.float32)
    for direction in (-1.0, 1.0):
        for turn in (1.0, -1.0):
            angle = np.pi * (side > 0) + turn * rng.uniform(0.9, 1.3) * direction
            width, bend = rng.uniform(0.013, 0.017), -turn * direction * 1.7
            _grow(rng, depth, _Sprout(np.array(disc), angle, bend, width))
    vessels = (depth > 0.25) & field
    picture += _BLOOD * cv2.GaussianBlur(depth, (0, 0), max(size / 900, 0.4))[..., np.newaxis]
    lesions = 0
    for kind, colour, radius in (
        ("mild", _BLOOD, 0.006),
        ("severe", _BLOOD, 0.017),
        ("severe", _EXUDATE, 0.012),
    ):
        if GRADES.index(grade) < GRADES.index(kind):
            continue
        for _ in range(rng.integers(6, 14)):
            distance, angle = 0.4 * np.sqrt(rng.uniform(0.02, 1)), rng.uniform(0, 2 * np.pi)
            centre = (0.5 + distance * np.cos(angle), 0.5 + distance * np.sin(angle))
            picture += colour * _disc(size, centre, radius * rng.uniform(0.7, 1.3))[..., np.newaxis]
            lesions += 1
    picture += 4 * smooth_noise(rng, size, max(size // 3, 2))[..., np.newaxis]
    picture[~field] = rng.uniform(0, 4)
    return FundusPhantom(np.clip(picture, 0, 255).astype(np.uint8), vessels, field, lesions)


class _Sprout(NamedTuple):
    """Where a vessel begins, its direction and how that turns (radians a side of the picture), its width."""

    start: npt.NDArray[np.float64]
    angle: float
    bend: float
    width: float
    level: int = 0


def _grow(rng: np.random.Generator, depth: npt.NDArray[np.float32], sprout: _Sprout) -> None:
    """Draw a vessel that bends and thins, and the branches that leave it."""
    size, step, level = len(depth), 0.02, sprout.level
    position, angle, width = sprout.start, sprout.angle, sprout.width
    for number in range(int(34 * 0.72**level)):
        ahead = position + step * np.array([np.cos(angle), np.sin(angle)])
        ends = np.rint(np.stack([position, ahead]) * size * 2**_SUBPIXEL).astype(np.int32)
        thick = max(round(width * size), 1)
        cv2.line(depth, ends[0].tolist(), ends[1].tolist(), 1.0, thick, cv2.LINE_AA, _SUBPIXEL)
        position, width = ahead, width * 0.975
        angle += step * sprout.bend + rng.normal(0, 0.09)
        if level < 3 and number > 2 and rng.random() < 0.16:
            away = angle + rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 0.9)
            _grow(rng, depth, _Sprout(position, away, rng.normal(0, 0.8), width * 0.7, level + 1))


def _distance(size: int, centre: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Distance of every pixel from a point, in sides of the picture."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.asarray(np.hypot(axis - centre[0], axis[:, np.newaxis] - centre[1]), np.float32)


def _disc(size: int, centre: tuple[float, float], radius: float) -> npt.NDArray[np.float32]:
    """A disc with a soft rim, in [0, 1]."""
    soft = max(1.2 / size, radius * 0.12)
    return np.asarray(np.clip((radius - _distance(size, centre)) / soft + 0.5, 0, 1), np.float32)
