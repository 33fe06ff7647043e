"""Vessels in photographs of the retina: how much every pixel looks like one, and a map of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import GreyPixels
from brain_mri.imaging.fundus import CLIP, TILES, Field, Plane, enhance, field_diameter, grow_field
from brain_mri.imaging.photograph import ColourPixels
from brain_mri.imaging.ridges import line_response, line_strength, local_contrast, ridge_response

Method = Literal["network", "threshold"]
Features: TypeAlias = npt.NDArray[np.float32]

WORKING_DIAMETER = 540
"""Pixels across the field of view at which vessels are looked for: those of DRIVE, whose widths the filters
have."""

_NETWORK = "vessel_network.json"
_LARGEST = 1.5  # of a picture's longer side, in diameters of the field: what cameras make is below 1.2


@dataclass(frozen=True)
class VesselOptions:
    """How vessels are found.

    Attributes:
        method: "network": a small neural network weighs the answers of line filters (Marín et al., "A New
            Supervised Method for Blood Vessel Segmentation in Retinal Images by Using Gray-Level and Moment
            Invariants-Based Features", IEEE Transactions on Medical Imaging 30, 2011, with other features).
            "threshold": the plain chain, an adaptive threshold and an opening.
        high: Likeness in [0, 1] that a vessel reaches somewhere (hysteresis: Canny, "A Computational Approach
            to Edge Detection", IEEE PAMI 8, 1986).
        low: Likeness that all of its pixels reach.
        smallest: Pixels of a piece, at the working size; smaller ones are dropped.
        block: Of the adaptive threshold: side of the window, in pixels at the working size.
        offset: Of the adaptive threshold: grey levels that a vessel is darker than its window.
        opening: Behind the adaptive threshold: side of the cross that opens its map (Serra, "Image Analysis
            and Mathematical Morphology", 1982), odd, in pixels; 1 leaves it.
    """

    method: Method = "network"
    high: float = 0.7
    low: float = 0.42
    smallest: int = 30
    block: int = 25
    offset: float = 8.0
    opening: int = 3


def find_vessels(
    photograph: ColourPixels, field: Field, options: VesselOptions, clip: float = CLIP, tiles: int = TILES
) -> npt.NDArray[np.uint8]:
    """Map the vessels.

    Args:
        photograph: uint8 ``(h, w, 3)``, in [0, 255].
        field: bool ``(h, w)``.
        options: How.
        clip: Of the plain chain's equalisation: limit of the contrast, as in :func:`enhance`.
        tiles: Of the same, a side.

    Returns:
        uint8 ``(h, w)``: 255 on vessels, 0 elsewhere and outside the field.
    """
    height, width = field.shape
    rows, columns = _around(field)
    part = field[rows, columns]
    likeness, inside = vessel_likeness(photograph[rows, columns], part, options, clip, tiles)
    found = clean_map(likeness, inside, options)
    size = (part.shape[1], part.shape[0])
    smooth = cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    vessels = np.zeros((height, width), np.uint8)
    vessels[rows, columns][(smooth > 0.5) & part] = 255
    return vessels


def _around(field: Field) -> tuple[slice, slice]:
    """Rows and columns of a picture not much larger than its field: the rest takes time and memory."""
    height, width = field.shape
    if max(height, width) <= _LARGEST * field_diameter(field):
        return slice(0, height), slice(0, width)
    margin = field_diameter(field) // 16
    sides = []
    for axis, length in ((1, height), (0, width)):
        found = np.flatnonzero(field.any(axis=axis))
        sides.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, length)))
    return sides[0], sides[1]


def vessel_likeness(
    photograph: ColourPixels, field: Field, options: VesselOptions, clip: float = CLIP, tiles: int = TILES
) -> tuple[Plane, Field]:
    """How much every pixel looks like a vessel, at the working size.

    Args:
        photograph: uint8 ``(h, w, 3)``, in [0, 255].
        field: bool ``(h, w)``.
        options: How.
        clip: As in :func:`find_vessels`.
        tiles: Likewise.

    Returns:
        float32 in [0, 1], 0 outside the field, and the field, both at the working size.
    """
    height, width = field.shape
    scale = WORKING_DIAMETER / field_diameter(field)
    if abs(scale - 1) > 0.02:  # else the eye sees no difference, and resizing blurs
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        photograph = np.asarray(cv2.resize(photograph, size, interpolation=way), np.uint8)
        field = cv2.resize(field.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    if options.method == "threshold":
        likeness = _threshold_likeness(enhance(photograph, field, clip, tiles), field, options)
    else:
        first, second = _network()
        features = vessel_features(photograph, field)
        likeness = np.zeros(field.shape, np.float32)
        likeness[field] = first(features)
        likeness[field] = second(np.concatenate([features, context_features(likeness, field)], axis=1))
    return likeness * field, field


def clean_map(likeness: Plane, field: Field, options: VesselOptions) -> Field:
    """Decide, and drop what is too small to be a vessel.

    Args:
        likeness: float32 ``(h, w)``, in [0, 1], at the working size.
        field: bool ``(h, w)``.
        options: How.

    Returns:
        bool ``(h, w)``.
    """
    if options.method == "threshold":
        likely = ((likeness > 0.5) & field).astype(np.uint8)
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (options.opening, options.opening))
        likely = np.asarray(cv2.morphologyEx(likely, cv2.MORPH_OPEN, cross), np.uint8)
        sure = likely > 0
    else:
        likely = ((likeness > options.low) & field).astype(np.uint8)
        sure = likeness > options.high
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    kept = np.zeros(count, bool)
    kept[np.unique(pieces[sure & (likely > 0)])] = True
    kept &= stats[:, cv2.CC_STAT_AREA] >= options.smallest
    kept[0] = False
    return np.asarray(kept[pieces], bool)


def vessel_features(photograph: ColourPixels, field: Field) -> Features:
    """What the network is told of every pixel of the field: contrasts, and answers of line filters.

    Args:
        photograph: uint8 ``(h, w, 3)``, in [0, 255], at the working size.
        field: bool ``(h, w)``.

    Returns:
        float32 ``(pixels of the field, features)``, in the order of the rows.
    """
    green, red = (grow_field(photograph[..., channel].astype(np.float32), field) for channel in (1, 0))
    dark = np.float32(255) - green
    even = np.float32(255) - cv2.createCLAHE(2.0, (8, 8)).apply(np.rint(green).astype(np.uint8))
    even = even.astype(np.float32)
    local = local_contrast(dark, 12, floor=4)
    level = cv2.GaussianBlur(dark, (0, 0), 20)
    deep = dark - level
    normal = deep / max(float(deep[field].std()), 1.0)
    planes = [local, deep, cv2.GaussianBlur(red, (0, 0), 20) - red, level]
    planes += [local - cv2.blur(local, (side, side)) for side in (3, 7, 15)]
    planes += [
        line_response(even, sigma, 8, ends=False, blur=0.5, growth=0.117) for sigma in (1.2, 1.8, 2.4, 3.2)
    ]
    planes += [
        line_response(even, sigma, 22, ends=True, blur=0.33, growth=0.017) for sigma in (1.2, 1.8, 2.6)
    ]
    planes += [
        ridge_response(local, across, along)
        for across, along in ((1, 4), (1.5, 6), (1.5, 12), (2, 7), (3, 9))
    ]
    planes += [ridge_response(normal, across, along) for across, along in ((1.5, 6), (2, 7), (3, 9))]
    planes += [line_strength(local, length) for length in (5, 9, 15)]
    for side in (7, 11, 17):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        planes.append(cv2.morphologyEx(even, cv2.MORPH_TOPHAT, ellipse))
    return np.array([plane[field] for plane in planes], np.float32).T


def context_features(likeness: Plane, field: Field) -> Features:
    """What a second look is told beside: how much the surroundings of a pixel look like vessels.

    Tu and Bai, "Auto-Context and Its Application to High-Level Vision Tasks", IEEE PAMI 32, 2010.

    Args:
        likeness: float32 ``(h, w)``, in [0, 1]: that of the first look.
        field: bool ``(h, w)``.

    Returns:
        float32 ``(pixels of the field, features)``.
    """
    planes = [_logit(likeness)]
    planes += [_logit(cv2.GaussianBlur(likeness, (0, 0), sigma)) for sigma in (1, 2, 4)]
    planes += [ridge_response(likeness, across, along) for across, along in ((1, 4), (1.5, 6), (2.5, 10))]
    return np.array([plane[field] for plane in planes], np.float32).T


@dataclass(frozen=True)
class Layers:
    """A network of one hidden layer, from features to a likeness.

    Attributes:
        mean: Of each feature, where it was fitted.
        scale: Likewise, the standard deviation.
        hidden: Weights ``(features, units)``.
        hidden_bias: ``(units,)``.
        out: Weights ``(units,)``.
        out_bias: ``()``.
    """

    mean: Plane
    scale: Plane
    hidden: Plane
    hidden_bias: Plane
    out: Plane
    out_bias: Plane

    def __call__(self, features: Features) -> Plane:
        """float32 in [0, 1] ``(n,)`` of features ``(n, f)``."""
        weights = self.hidden / self.scale[:, np.newaxis]  # there are far fewer of them than features
        units = features @ weights
        units += self.hidden_bias - self.mean @ weights
        np.maximum(units, 0, out=units)
        return np.asarray(1 / (1 + np.exp(-(units @ self.out + self.out_bias))), np.float32)


def read_network(text: str) -> tuple[Layers, Layers]:
    """The first look and the second, from JSON."""
    looks = [
        Layers(*(np.array(look[field.name], np.float32) for field in fields(Layers)))
        for look in json.loads(text)["looks"]
    ]
    return looks[0], looks[1]


def network_digest() -> str:
    """sha256 of the network's weights, its first twelve digits."""
    return hashlib.sha256(_network_text().encode()).hexdigest()[:12]


@cache
def _network_text() -> str:
    return resources.files(__package__).joinpath(_NETWORK).read_text(encoding="utf-8")


@cache
def _network() -> tuple[Layers, Layers]:
    return read_network(_network_text())


def _threshold_likeness(enhanced: GreyPixels, field: Field, options: VesselOptions) -> Plane:
    """How far a pixel is darker than its window's Gaussian mean: 0.5 at the offset."""
    even = enhanced.astype(np.float32)
    even[~field] = even[field].mean()
    darker = cv2.GaussianBlur(even, (options.block, options.block), 0) - even
    return np.asarray(1 / (1 + np.exp((options.offset - darker) / 4)), np.float32)


def _logit(likeness: npt.ArrayLike) -> Plane:
    certain = np.clip(likeness, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(certain / (1 - certain)), np.float32)
