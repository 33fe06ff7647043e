"""Shapes in head coordinates and the pen that puts them on the pixel grid.

Head coordinates: the origin is the middle of the head, x grows to the right, y downwards, and the head
reaches about 1 in its longest direction, whatever the size of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Plane = NDArray[np.float32]
Mask = NDArray[np.uint8]

_SUBPIXEL_BITS = 4


def oval(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radii: tuple[float, float],
    *,
    tilt: float = 0.0,
    roughness: float = 0.02,
    harmonics: int = 4,
) -> Points:
    """Return a closed curve: an ellipse whose radius is disturbed by a few random harmonics.

    Args:
        rng: Source of the disturbance.
        centre: Middle of the curve in head coordinates.
        radii: Half axes along x and y before tilting.
        tilt: Rotation in radians.
        roughness: Relative standard deviation of each harmonic; 0 draws a true ellipse.
        harmonics: Highest harmonic; the first one used is the second, since the first only moves the curve.

    Returns:
        Points of shape (72, 2).
    """
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    order = np.arange(2, harmonics + 1)[:, None]
    phases = rng.uniform(0, 2 * np.pi, (len(order), 1))
    weights = rng.normal(0, roughness, (len(order), 1)) * np.sqrt(2 / order)
    radius = 1 + (weights * np.cos(order * angle + phases)).sum(axis=0)
    x, y = radii[0] * radius * np.cos(angle), radii[1] * radius * np.sin(angle)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return np.stack([centre[0] + cosine * x - sine * y, centre[1] + sine * x + cosine * y], axis=1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int, columns: int | None = None) -> Plane:
    """Return a field of shape (size, size) with mean about 0, deviation about 1 and `cells` bumps a side.

    `columns` gives another number of bumps from left to right.
    """
    coarse = rng.standard_normal((cells, columns or cells), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


class Pen:
    """Draws head coordinates on a square picture in one random pose: size, proportions, turn, place.

    Args:
        rng: Source of the pose.
        size: Side of the picture in pixels.
        mirrored: Whether left and right are exchanged.
    """

    def __init__(self, rng: np.random.Generator, size: int, *, mirrored: bool) -> None:
        self.size = size
        self.scale = size / 2 * rng.uniform(0.84, 1.02)
        stretch = rng.uniform(0.93, 1.07)
        angle = np.deg2rad(rng.normal(0, 7))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._matrix = self.scale * turn @ np.diag([-stretch if mirrored else stretch, 1 / stretch])
        self._offset = size / 2 * (1 + rng.uniform(-0.05, 0.05, 2))

    def place(self, points: Points) -> NDArray[np.int32]:
        """Return pixel positions of `points` in the fixed-point form that OpenCV draws."""
        positions = (points @ self._matrix.T + self._offset) * (1 << _SUBPIXEL_BITS)
        return np.asarray(np.rint(positions), dtype=np.int32)

    def locate(self, column: float, row: float) -> tuple[float, float]:
        """Return the head coordinates of a pixel."""
        x, y = np.linalg.solve(self._matrix, np.array([column, row]) - self._offset)
        return float(x), float(y)

    def fill(self, plane: Plane | Mask, polygon: Points, value: float) -> None:
        """Fill `polygon` in `plane` with `value`, in place."""
        cv2.fillPoly(plane, [self.place(polygon)], float(value), cv2.LINE_8, _SUBPIXEL_BITS)

    def line(self, plane: Plane | Mask, points: Points, width: float, value: float) -> None:
        """Draw an open line of `width` (head coordinates) in `plane`, in place."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(plane, [self.place(points)], False, float(value), thickness, cv2.LINE_8, _SUBPIXEL_BITS)

    def mask(self, *polygons: Points) -> Mask:
        """Return the union of `polygons`: uint8 of shape (size, size), 1 inside and 0 outside."""
        plane = np.zeros((self.size, self.size), np.uint8)
        for polygon in polygons:
            self.fill(plane, polygon, 1)
        return plane

    def hull(self, *polygons: Points) -> Mask:
        """Return the convex hull of `polygons` as a mask."""
        plane = np.zeros((self.size, self.size), np.uint8)
        corners = cv2.convexHull(np.concatenate([self.place(polygon) for polygon in polygons]))
        cv2.fillPoly(plane, [corners], 1.0, cv2.LINE_8, _SUBPIXEL_BITS)
        return plane
