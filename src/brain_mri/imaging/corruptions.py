"""What may happen to a picture on its way: noise, blur, another brightness, a turn, strong compression.

Kinds and levels follow Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019, in units that a reader can picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import GreyPixels

Plane: TypeAlias = npt.NDArray[np.float64]


class Corruption(NamedTuple):
    """A way to spoil a picture.

    Attributes:
        unit: What a level is.
        levels: From the one that changes nothing to the strongest.
        apply: From pixels uint8 (height, width), a level and a random generator to pixels.
    """

    unit: str
    levels: tuple[float, ...]
    apply: Callable[[GreyPixels, float, np.random.Generator], GreyPixels]


def _noise(grey: GreyPixels, level: float, generator: np.random.Generator) -> GreyPixels:
    return _rounded(grey + level * generator.standard_normal(grey.shape))


def _blur(grey: GreyPixels, level: float, generator: np.random.Generator) -> GreyPixels:
    del generator
    sigma = level / 100 * max(grey.shape)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), np.uint8) if level else grey


def _brightness(grey: GreyPixels, level: float, generator: np.random.Generator) -> GreyPixels:
    del generator
    return _rounded(grey.astype(np.float64) * level)


def _rotation(grey: GreyPixels, level: float, generator: np.random.Generator) -> GreyPixels:
    angle = level * generator.choice((-1, 1))
    height, width = grey.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return np.asarray(cv2.warpAffine(grey, turn, (width, height)), np.uint8) if level else grey


def _jpeg(grey: GreyPixels, level: float, generator: np.random.Generator) -> GreyPixels:
    del generator
    if level > 100:  # as it is
        return grey
    _, content = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(level)])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), np.uint8)


def _rounded(values: Plane) -> GreyPixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS = {
    "noise": Corruption("deviation in grey levels", (0, 5, 10, 20, 40), _noise),
    "blur": Corruption("sigma in percent of the side", (0, 0.25, 0.5, 1, 2), _blur),
    "brightness": Corruption("factor", (1, 0.7, 0.85, 1.15, 1.3), _brightness),
    "rotation": Corruption("degrees, either way", (0, 5, 10, 20, 45), _rotation),
    "jpeg": Corruption("quality; 101: not compressed", (101, 70, 40, 20, 10), _jpeg),
}
"""By name; the first level of each leaves the picture as it is."""


def corrupt(grey: GreyPixels, kind: str, level: float, seed: int) -> GreyPixels:
    """Spoil a picture.

    Args:
        grey: uint8 (height, width).
        kind: One of ``CORRUPTIONS``.
        level: In its unit.
        seed: Decides about noise and direction.

    Returns:
        uint8 of the same shape.

    Example:
        >>> corrupt(np.full((4, 4), 100, np.uint8), "brightness", 1.5, seed=1)[0, 0]
        np.uint8(150)
    """
    return CORRUPTIONS[kind].apply(grey, level, np.random.default_rng(seed))


def made_pictures(count: int, size: int, seed: int) -> dict[str, GreyPixels]:
    """Draw pictures that are no scan of anything: noise, and gradients, stripes, boards, discs, scribbles.

    Args:
        count: How many of each: of noise, and of the others together.
        size: Height and width in pixels.
        seed: Decides about all of them.

    Returns:
        uint8 ``(count, size, size)`` of "noise" and of "drawn".

    Example:
        >>> {kind: pictures.shape for kind, pictures in made_pictures(3, 64, seed=1).items()}
        {'noise': (3, 64, 64), 'drawn': (3, 64, 64)}
    """
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]

    def gradient() -> Plane:
        turn = generator.uniform(0, 2 * np.pi)
        plane = np.cos(turn) * rows + np.sin(turn) * columns
        return np.asarray(255 * (plane - plane.min()) / np.ptp(plane))

    def stripes() -> Plane:
        turn, number = generator.uniform(0, np.pi), generator.uniform(3, 30)
        phase = 2 * np.pi * number * (np.cos(turn) * rows + np.sin(turn) * columns)
        return np.asarray(127.5 + 127.5 * np.sin(phase))

    def board() -> Plane:
        number = generator.integers(2, 16)
        return np.asarray(255.0 * (((rows * number).astype(int) + (columns * number).astype(int)) % 2))

    def discs() -> Plane:
        plane = np.full((size, size), generator.integers(0, 256), np.uint8)
        for _ in range(int(generator.integers(1, 12))):
            place = tuple(int(value) for value in generator.integers(0, size, 2))
            radius, grey = int(generator.integers(2, size // 3)), int(generator.integers(0, 256))
            cv2.circle(plane, place, radius, grey, -1)
        return plane.astype(np.float64)

    def scribble() -> Plane:
        plane = np.full((size, size), 255, np.uint8)
        for line in range(0, size, max(size // 12, 4)):
            word = "".join(chr(int(code)) for code in generator.integers(33, 126, 24))
            cv2.putText(plane, word, (4, line), cv2.FONT_HERSHEY_SIMPLEX, size / 500, 0)
        return plane.astype(np.float64)

    def noise() -> Plane:
        cells = int(generator.choice((4, 16, 64, size)))
        small = generator.uniform(0, 255, (cells, cells)).astype(np.float32)
        return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.float64)

    kinds = {"noise": (noise,), "drawn": (gradient, stripes, board, discs, scribble)}
    return {
        kind: np.stack([_rounded(draw[number % len(draw)]()) for number in range(count)])
        for kind, draw in kinds.items()
    }
