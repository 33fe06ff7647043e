"""All steps from the bytes of a photograph of the retina to those of its enhanced picture and vessel map."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import cv2

from brain_mri.imaging.decode import DecodeLimits, GreyPixels, RefusedImage
from brain_mri.imaging.fundus import CLIP, DARK, TILES, enhance, field_of_view
from brain_mri.imaging.photograph import PHOTOGRAPH_LIMITS, decode_photograph
from brain_mri.imaging.vessels import VesselOptions, find_vessels, network_digest

Result = TypeVar("Result")


@dataclass(frozen=True)
class EnhanceOptions:
    """How photographs are enhanced.

    Attributes:
        dark: What is darker than this share of the bright parts lies outside the field of view
            (:func:`brain_mri.imaging.fundus.field_of_view`).
        clip: Limit of the contrast (:func:`brain_mri.imaging.fundus.enhance`).
        tiles: A side, likewise.
        vessels: How vessels are found.
    """

    dark: float = DARK
    clip: float = CLIP
    tiles: int = TILES
    vessels: VesselOptions = field(default_factory=VesselOptions)


class Enhanced(NamedTuple):
    """What was made of one photograph.

    Attributes:
        enhanced: PNG, grey, of the photograph's size.
        vessels: PNG, 255 on vessels and 0 elsewhere, of the same size.
        width: In pixels.
        height: Likewise.
        vessel_share: Of the field of view, in [0, 1].
        seconds: Of the stages: `decode`, `enhance`, `encode`.
    """

    enhanced: bytes
    vessels: bytes
    width: int
    height: int
    vessel_share: float
    seconds: dict[str, float]


def steps_version() -> str:
    """What decides about an enhanced photograph beside its content and the options.

    Raise the number when a step changes what it makes.
    """
    return f"1 opencv {cv2.__version__} network {network_digest()}"


def enhance_photograph(
    content: bytes, options: EnhanceOptions, limits: DecodeLimits = PHOTOGRAPH_LIMITS
) -> Enhanced:
    """Enhance one photograph.

    Args:
        content: The whole image file.
        options: How.
        limits: What is refused.

    Raises:
        RefusedImage: It cannot be decoded, breaks a limit or shows no field of view.

    Example:
        >>> enhance_photograph(Path("21_training.tif").read_bytes(), EnhanceOptions()).width  # doctest: +SKIP
        565
    """
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        result = work()
        seconds[stage] = time.perf_counter() - started
        return result

    photograph = timed("decode", lambda: decode_photograph(content, limits))

    def all_steps() -> tuple[GreyPixels, GreyPixels, float]:
        inside = field_of_view(photograph, options.dark)
        grey = enhance(photograph, inside, options.clip, options.tiles)
        vessels = find_vessels(photograph, inside, options.vessels, options.clip, options.tiles)
        return grey, vessels, float((vessels[inside] > 0).mean())

    grey, vessels, share = timed("enhance", all_steps)
    pictures = timed("encode", lambda: (_png(grey), _png(vessels)))
    height, width = grey.shape
    return Enhanced(*pictures, width, height, share, seconds)


def _png(pixels: GreyPixels) -> bytes:
    written, encoded = cv2.imencode(".png", pixels)
    if not written:
        raise RefusedImage("not_encoded", "The picture cannot be written as PNG.")
    return encoded.tobytes()
