"""A heat map over a grey picture, for eyes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import GreyPixels

_STRONGEST = 0.65  # share of the heat where it is 1: the scan shines through everywhere


def overlay_heat(grey: GreyPixels, heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay a heat map over a picture: dark and clear where it is 0, bright yellow where it is 1.

    Args:
        grey: uint8 (height, width).
        heat: float32 (height, width), in [0, 1].

    Returns:
        uint8 (height, width, 3), red, green, blue.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> overlay_heat(np.full((2, 2), 100, np.uint8), np.zeros((2, 2), np.float32))[0, 0].tolist()
        [100, 100, 100]
    """
    if grey.shape != heat.shape:
        raise ValueError(f"The heat map is {heat.shape}, the picture {grey.shape}: expected one shape.")
    levels = np.clip(heat * 255, 0, 255).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = (_STRONGEST * np.sqrt(np.clip(heat, 0, 1)))[..., np.newaxis]
    mixed = (1 - share) * grey[..., np.newaxis] + share * coloured
    return np.asarray(np.rint(mixed), np.uint8)
