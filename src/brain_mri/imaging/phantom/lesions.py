"""Lesions as a radiologist describes them, drawn into a finished slice.

Gliomas infiltrate white matter with an irregular border, a dead core, a rim that takes up contrast, and oedema
around; meningiomas are smooth, even and bright, sit on the dura with a broad base and a "tail"; pituitary
adenomas are small, round or shaped like a snowman, and sit in the sella, in the middle of the skull base. Some of
each lack their typical signs, and some healthy slices show harmless bright spots, so that the classes overlap.
"""

from __future__ import annotations

import cv2
import numpy as np

from brain_mri.imaging.phantom.pen import Mask, Pen, Plane, oval, smooth_noise
from brain_mri.imaging.phantom.tissues import Tissues


def _blend(plane: Plane, weight: Plane, value: float) -> None:
    plane += weight * (np.float32(value) - plane)


def _infiltrate(
    plane: Plane, rng: np.random.Generator, place: tuple[int, int], reach: float, value: float, brain: Mask
) -> Mask:
    """Blend a soft, fingered patch of radius `reach` pixels into the brain; return where it is."""
    size = plane.shape[0]
    rows, columns = np.ogrid[:size, :size]
    distance = np.sqrt((rows - place[0]) ** 2 + (columns - place[1]) ** 2).astype(np.float32) / reach
    field = 1 - distance + 0.32 * smooth_noise(rng, size, 22)
    weight = np.clip(field / 0.25, 0, 0.85) * brain
    _blend(plane, weight, value)
    return np.asarray(weight > 0.4, dtype=np.uint8)


def add_glioma(plane: Plane, rng: np.random.Generator, pen: Pen, tissues: Tissues, depth: Plane) -> Mask:
    """Draw an infiltrating tumour into `plane`; return its mask, oedema included."""
    brain = (depth > 0).astype(np.uint8)
    radius = rng.uniform(0.16, 0.28)
    deep = np.argwhere(depth > min(0.11 * pen.scale, 0.6 * float(depth.max())))
    row, column = (int(value) for value in deep[rng.integers(len(deep))])
    mask = np.zeros_like(brain)
    if rng.random() < 0.9:
        reach = radius * rng.uniform(1.5, 2.0) * pen.scale
        mask |= _infiltrate(plane, rng, (row, column), reach, tissues.oedema, brain)
    radii = (radius, radius * rng.uniform(0.65, 1.0))
    rough = {"roughness": 0.11, "harmonics": 8}
    centre, tilt = pen.locate(column, row), rng.uniform(0, np.pi)
    whole = pen.mask(oval(rng, centre, radii, tilt=tilt, **rough)) & brain  # type: ignore[arg-type]
    mottled = np.float32(0.10) * smooth_noise(rng, pen.size, 48)
    plane[whole > 0] = (tissues.rim + mottled)[whole > 0]
    if rng.random() < 0.9:
        share = rng.uniform(0.5, 0.78)
        inner = (radii[0] * share, radii[1] * share)
        core = pen.mask(oval(rng, centre, inner, tilt=tilt, **rough)) & whole  # type: ignore[arg-type]
        plane[core > 0] = (tissues.necrosis + mottled)[core > 0]
    return np.asarray(mask | whole)


def add_meningioma(
    plane: Plane, rng: np.random.Generator, pen: Pen, tissues: Tissues, depth: Plane, skull: Mask
) -> Mask:
    """Draw a smooth tumour on the dura into `plane`; return its mask, tail included, oedema excluded.

    Args:
        plane: Slice to draw into.
        rng: Source of place and shape.
        pen: Pose of the head.
        tissues: Grey values.
        depth: Distance to the border of the brain in pixels, 0 outside.
        skull: 1 inside the skull.
    """
    brain = (depth > 0).astype(np.uint8)
    radius = rng.uniform(0.16, 0.28)
    border = np.argwhere((depth > 0) & (depth < 2))
    row, column = (float(value) for value in border[rng.integers(len(border))])
    middle = np.argwhere(depth > 0.5 * depth.max()).mean(axis=0)
    inwards = (middle - [row, column]) / (np.hypot(*(middle - [row, column])) + 1e-6)
    step = radius * rng.uniform(0.35, 0.75) * pen.scale
    centre_row, centre_column = row + inwards[0] * step, column + inwards[1] * step
    if rng.random() < 0.15:
        place = (int(centre_row), int(centre_column))
        _infiltrate(plane, rng, place, 1.6 * radius * pen.scale, tissues.oedema, brain)
    outline = oval(
        rng,
        pen.locate(centre_column, centre_row),
        (radius, radius * rng.uniform(0.75, 1.0)),
        tilt=rng.uniform(0, np.pi),
        roughness=0.025,
        harmonics=3,
    )
    mask = pen.mask(outline) & skull
    cleft = cv2.dilate(mask, np.ones((3, 3), np.uint8)) & skull
    rows, columns = np.ogrid[: pen.size, : pen.size]
    nearby = (rows - row) ** 2 + (columns - column) ** 2 < (1.7 * radius * pen.scale) ** 2
    tail = ((depth < 0.035 * pen.scale) & (skull > 0) & nearby).astype(np.uint8)
    plane[cleft > 0] = tissues.csf
    mask = mask | tail
    even = np.float32(0.025) * smooth_noise(rng, pen.size, 20)
    plane[mask > 0] = (tissues.solid + even)[mask > 0]
    return np.asarray(mask)


def add_adenoma(
    plane: Plane, rng: np.random.Generator, pen: Pen, tissues: Tissues, sella: tuple[float, float]
) -> Mask:
    """Draw a tumour of the pituitary gland at `sella` (head coordinates) into `plane`; return its mask."""
    radius = rng.uniform(0.09, 0.17)
    x, y = sella
    outlines = [oval(rng, (x, y), (radius, radius * rng.uniform(0.75, 1.0)), roughness=0.03)]
    if rng.random() < 0.5:
        upper = radius * rng.uniform(0.6, 0.85)
        outlines.append(oval(rng, (x, y - 0.9 * radius), (upper, upper), roughness=0.04))
    mask = pen.mask(*outlines)
    rim = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    plane[rim > 0] = tissues.csf
    even = np.float32(0.04) * smooth_noise(rng, pen.size, 32)
    plane[mask > 0] = (tissues.adenoma + even)[mask > 0]
    if rng.random() < 0.25:
        pen.fill(plane, oval(rng, (x, y), (0.45 * radius, 0.4 * radius)), tissues.necrosis)
    return mask


def add_harmless_spots(
    plane: Plane, rng: np.random.Generator, pen: Pen, tissues: Tissues, depth: Plane
) -> None:
    """Draw what is no tumour but may look like one: vessels, white-matter spots, calcified choroid plexus."""
    inside = np.argwhere(depth > 0.06 * pen.scale)
    for _ in range(int(rng.integers(0, 7))):
        row, column = inside[rng.integers(len(inside))]
        radius = rng.uniform(0.008, 0.03)
        value = rng.choice([tissues.solid, tissues.oedema, tissues.csf])
        pen.fill(plane, oval(rng, pen.locate(column, row), (radius, radius), roughness=0.1), float(value))
