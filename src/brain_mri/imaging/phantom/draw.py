"""One synthetic slice: a head in some pose, perhaps a lesion, seen by an imperfect scanner."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import cv2
import numpy as np
from numpy.typing import NDArray

from brain_mri.imaging.phantom import anatomy, lesions
from brain_mri.imaging.phantom.pen import Mask, Pen, Plane, smooth_noise
from brain_mri.imaging.phantom.tissues import Tissues, draw_tissues

PHANTOM_CLASSES = ("glioma", "meningioma", "notumor", "pituitary")

_ORIENTATIONS = (anatomy.axial, anatomy.coronal, anatomy.sagittal)


@dataclass(frozen=True)
class Phantom:
    """A synthetic slice and the truth about it.

    Attributes:
        pixels: Grey values, uint8 of shape (height, width).
        lesion_mask: True where the lesion is, bool of the same shape; all False for `notumor`.
    """

    pixels: NDArray[np.uint8]
    lesion_mask: NDArray[np.bool_]


def draw_phantom(label: str, seed: int, size: int = 256) -> Phantom:
    """Draw one synthetic slice; the same arguments give the same pixels.

    Args:
        label: One of `PHANTOM_CLASSES`.
        seed: Any integer from 0 up.
        size: Side of the square picture in pixels, at least 64.

    Returns:
        The slice and the mask of its lesion.

    Raises:
        ValueError: If the label is unknown or the size too small.

    Example:
        >>> draw_phantom("glioma", seed=1).lesion_mask.any()
        np.True_
    """
    if label not in PHANTOM_CLASSES:
        near = get_close_matches(label, PHANTOM_CLASSES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"No phantom of class {label!r}; there are {', '.join(PHANTOM_CLASSES)}.{hint}")
    if size < 64:
        raise ValueError(f"A phantom needs a side of at least 64 pixels, but size is {size}.")
    rng = np.random.default_rng(seed)
    tissues = draw_tissues(rng)
    pen = Pen(rng, size, mirrored=rng.random() < 0.5)
    orientation = _ORIENTATIONS[rng.integers(len(_ORIENTATIONS))]
    slice_of = orientation(rng, with_sella=label == "pituitary")
    head = _paint_head(rng, pen, tissues, slice_of)
    lesions.add_harmless_spots(head, rng, pen, tissues)
    mask: Mask = np.zeros((size, size), np.uint8)
    if label == "glioma":
        mask = lesions.add_glioma(head, rng, pen, tissues)
    elif label == "meningioma":
        mask = lesions.add_meningioma(head, rng, pen, tissues)
    elif label == "pituitary":
        mask = lesions.add_adenoma(head, rng, pen, tissues)
    return Phantom(_scan(head.plane, rng), mask > 0)


def _paint_head(
    rng: np.random.Generator, pen: Pen, tissues: Tissues, slice_of: anatomy.Anatomy
) -> lesions.Head:
    """Return the slice of a healthy head, painted from the skin inwards."""
    size = pen.size
    brain = pen.mask(*slice_of.brain)
    depth = _distance(brain)
    fluid, bone, skin = rng.uniform([0.015, 0.05, 0.03], [0.03, 0.10, 0.08])
    vault = _distance(1 - pen.hull(*slice_of.brain)) / pen.scale + 0.15 * bone * smooth_noise(rng, size, 7)
    flesh = (vault < fluid + bone).astype(np.uint8) | pen.mask(*(shape for shape, _ in slice_of.face))
    plane = np.zeros((size, size), np.float32)
    plane[_distance(1 - flesh) < skin * pen.scale] = tissues.fat
    for shape, tissue in slice_of.face:
        pen.fill(plane, shape, getattr(tissues, tissue))
    plane[vault < fluid + bone] = tissues.bone
    skull = (_distance(1 - brain) < fluid * pen.scale).astype(np.uint8)
    plane[skull > 0] = tissues.csf
    inside = brain > 0
    plane[inside] = _cortex(rng, size, depth / pen.scale, tissues)[inside]
    if slice_of.folia:
        folds = pen.mask(*slice_of.folia) > 0
        stripes = np.float32(0.09) * smooth_noise(rng, size, 72, columns=14)
        plane[folds] = (np.float32(tissues.grey) + stripes)[folds]
    for points, width, tissue in slice_of.lines:
        pen.line(plane, points, width, getattr(tissues, tissue))
    for shape, tissue in slice_of.inside:
        pen.fill(plane, shape, getattr(tissues, tissue))
    return lesions.Head(plane, depth, brain, skull, slice_of.sella)


def _distance(mask: Mask) -> Plane:
    """Return the distance in pixels from each point inside `mask` to its border, 0 outside."""
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 3), dtype=np.float32)


def _cortex(rng: np.random.Generator, size: int, depth: Plane, tissues: Tissues) -> Plane:
    """Return brain tissue: fluid in the sulci, grey matter along them, white matter in the depth.

    The zero lines of smooth noise wander like sulci; `depth` (head coordinates) fades them out inwards.
    """
    ridge = np.abs(smooth_noise(rng, size, int(rng.integers(20, 28))))
    to_grey = np.clip((ridge + 1.2 * depth - rng.uniform(0.04, 0.14)) / 0.15, 0, 1)
    to_white = np.clip((ridge + 3.0 * depth - rng.uniform(0.6, 0.8)) / 0.2, 0, 1)
    tissue = tissues.csf + (tissues.grey - tissues.csf) * to_grey
    tissue += (tissues.white - tissue) * to_white
    return np.asarray(tissue, dtype=np.float32)


def _scan(plane: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return what a scanner makes of `plane`: limited resolution, bias field, Rician noise, a grey window.

    Rician noise is the length of a complex signal with normal noise in both parts: Gudbjartsson and Patz,
    "The Rician distribution of noisy MRI data", Magnetic Resonance in Medicine 34 (1995).
    """
    size = plane.shape[0]
    signal = cv2.GaussianBlur(plane, (0, 0), rng.uniform(0.6, 1.1) * size / 256)
    bias = cv2.resize(
        rng.normal(1, 0.09, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    signal *= np.clip(bias, 0.6, 1.4)
    deviation = np.float32(rng.uniform(0.008, 0.035))
    noise = rng.standard_normal((2, size, size), dtype=np.float32) * deviation
    signal = cv2.magnitude(signal + noise[0], noise[1])
    window = rng.uniform(200, 270)
    gamma = rng.uniform(0.8, 1.25)
    return np.asarray(np.clip(cv2.pow(signal, gamma) * window, 0, 255), dtype=np.uint8)
