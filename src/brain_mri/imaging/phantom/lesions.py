"""Lesions as a radiologist describes them, drawn into a finished slice.

Gliomas infiltrate white matter with an irregular border, a dead core, a rim that takes up contrast, and
oedema around. Meningiomas are smooth, even and bright and sit on the dura with a broad base and a "tail".
Pituitary adenomas are small, round or shaped like a snowman, and sit in the sella, in the middle of the skull
base. Some lack a typical sign, and healthy slices show harmless bright spots, so that the classes overlap.

Every function draws into the head that it is given and returns a mask of the lesion: uint8, 1 inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from brain_mri.imaging.phantom.pen import Mask, Pen, Plane, oval, smooth_noise
from brain_mri.imaging.phantom.tissues import Tissues

_ONE_PIXEL_WIDER = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Head:
    """A painted slice and what lesions need to know about it; all of shape (size, size).

    Attributes:
        plane: Grey values, 0 to about 1; changed in place.
        depth: Distance to the border of the brain in pixels, 0 outside.
        brain: 1 inside the brain.
        skull: 1 inside the skull: the brain and the fluid around it.
        sella: Where the pituitary gland is in head coordinates, or None where the slice misses it.
    """

    plane: Plane
    depth: Plane
    brain: Mask
    skull: Mask
    sella: tuple[float, float] | None


def add_glioma(head: Head, rng: np.random.Generator, pen: Pen, tissues: Tissues) -> Mask:
    """Draw an infiltrating tumour; the mask holds its oedema too."""
    radius = rng.uniform(0.19, 0.30)
    deep = np.argwhere(head.depth > min(0.15 * pen.scale, 0.6 * float(head.depth.max())))
    row, column = (int(value) for value in deep[rng.integers(len(deep))])
    mask: Mask = np.zeros_like(head.brain)
    if rng.random() < 0.94:
        mask |= _infiltrate(head, rng, (row, column), radius * rng.uniform(1.5, 2.0) * pen.scale, tissues)
    centre, tilt, slimness = pen.locate(column, row), rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)

    def irregular(size: float) -> Mask:
        return pen.mask(oval(rng, centre, (size, size * slimness), tilt=tilt, roughness=0.11, harmonics=8))

    whole = irregular(radius) & head.brain
    mottled = np.float32(0.13) * smooth_noise(rng, pen.size, 48)
    _paint(head.plane, whole, tissues.rim + mottled)
    if rng.random() < 0.95:
        _paint(head.plane, irregular(radius * rng.uniform(0.5, 0.78)) & whole, tissues.necrosis + mottled)
    return np.asarray(mask | whole)


def add_meningioma(head: Head, rng: np.random.Generator, pen: Pen, tissues: Tissues) -> Mask:
    """Draw a smooth tumour on the dura; the mask holds its tail, but no oedema."""
    radius = rng.uniform(0.18, 0.30)
    dura = ((head.depth > 0) & (head.depth < 2)).astype(np.uint8)
    if head.sella is not None:
        pen.fill(dura, oval(rng, head.sella, (0.45, 0.45)), 0)  # there it would pass for an adenoma
    border = np.argwhere(dura)
    root = border[rng.integers(len(border))]
    inwards = np.argwhere(head.depth > 0.5 * head.depth.max()).mean(axis=0) - root
    inwards /= np.hypot(*inwards) + 1e-6
    middle = root + inwards * radius * rng.uniform(0.45, 0.8) * pen.scale
    if rng.random() < 0.06:
        _infiltrate(head, rng, (int(middle[0]), int(middle[1])), 1.6 * radius * pen.scale, tissues)
    outline = oval(
        rng,
        pen.locate(middle[1], middle[0]),
        (radius, radius * rng.uniform(0.75, 1.0)),
        tilt=rng.uniform(0, np.pi),
        roughness=0.025,
        harmonics=3,
    )
    body = pen.mask(outline) & head.skull
    _paint(
        head.plane, _widen(body) & head.skull, tissues.csf
    )  # the cleft of fluid that parts it from the brain
    rows, columns = np.ogrid[: pen.size, : pen.size]
    nearby = (rows - root[0]) ** 2 + (columns - root[1]) ** 2 < (1.7 * radius * pen.scale) ** 2
    tail = nearby & (head.depth < 0.035 * pen.scale) & (head.skull > 0)
    mask = body | tail.astype(np.uint8)
    _paint(head.plane, mask, tissues.solid + np.float32(0.025) * smooth_noise(rng, pen.size, 20))
    return np.asarray(mask)


def add_adenoma(head: Head, rng: np.random.Generator, pen: Pen, tissues: Tissues) -> Mask:
    """Draw a tumour of the pituitary gland; the slice must show the sella."""
    assert head.sella is not None
    radius = rng.uniform(0.11, 0.18)
    x, y = head.sella
    outlines = [oval(rng, (x, y), (radius, radius * rng.uniform(0.75, 1.0)), roughness=0.03)]
    if rng.random() < 0.5:  # grown upwards through the narrow diaphragm of the sella: a snowman
        upper = radius * rng.uniform(0.6, 0.85)
        outlines.append(oval(rng, (x, y - 0.9 * radius), (upper, upper), roughness=0.04))
    mask = pen.mask(*outlines)
    _paint(head.plane, _widen(mask), tissues.csf)
    _paint(head.plane, mask, tissues.adenoma + np.float32(0.04) * smooth_noise(rng, pen.size, 32))
    if rng.random() < 0.25:
        pen.fill(head.plane, oval(rng, (x, y), (0.45 * radius, 0.4 * radius)), tissues.necrosis)
    return mask


def add_harmless_spots(head: Head, rng: np.random.Generator, pen: Pen, tissues: Tissues) -> None:
    """Draw what is no tumour but may look like a small one: vessels, white-matter spots, calcifications."""
    inside = np.argwhere(head.depth > 0.06 * pen.scale)
    for _ in range(int(rng.integers(0, 5))):
        row, column = inside[rng.integers(len(inside))]
        radius = rng.uniform(0.008, 0.025)
        value = (tissues.solid, tissues.oedema, tissues.csf)[rng.integers(3)]
        pen.fill(head.plane, oval(rng, pen.locate(column, row), (radius, radius), roughness=0.1), value)


def _infiltrate(
    head: Head, rng: np.random.Generator, place: tuple[int, int], reach: float, tissues: Tissues
) -> Mask:
    """Draw oedema with soft fingers about `place` (row, column), `reach` pixels wide; return its mask."""
    size = head.plane.shape[0]
    rows, columns = np.ogrid[:size, :size]
    distance = np.sqrt((rows - place[0]) ** 2 + (columns - place[1]) ** 2).astype(np.float32) / reach
    fingers = np.float32(0.32) * smooth_noise(rng, size, 22)
    weight = np.clip((1 - distance + fingers) / 0.25, 0, 0.92) * head.brain
    head.plane[...] += weight * (np.float32(tissues.oedema) - head.plane)
    return np.asarray(weight > 0.4, dtype=np.uint8)


def _paint(plane: Plane, mask: Mask, values: float | Plane) -> None:
    """Set `plane` to `values` where `mask` is 1."""
    np.copyto(plane, np.float32(values), where=mask > 0)


def _widen(mask: Mask) -> Mask:
    """Return `mask` grown by one pixel in every direction."""
    return np.asarray(cv2.dilate(mask, _ONE_PIXEL_WIDER), dtype=np.uint8)
