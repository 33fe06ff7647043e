"""Area averaging, by matrix products where these are faster than OpenCV's own."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

# Beyond so many multiplications a pixel OpenCV is faster: 512 × 512 to 224 × 224 takes ten, and half of
# OpenCV's time.
_MOST_PRODUCTS = 24


def use_one_thread() -> None:
    """Keep OpenCV and NumPy in this process to a thread each: where each core has a task, more disturb."""
    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")


def area_resize(pixels: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Shrink grey pixels by averaging over areas; the aspect ratio need not be kept.

    Every output pixel is the mean of the rectangle of the picture that it stands for, pixels at the edges of
    the rectangle counting by the share that lies in it. That is OpenCV's `INTER_AREA`, up to one grey level
    where the mean lies between two. A side that is not shrunk is OpenCV's affair: it interpolates linearly.

    The mean is a product with a matrix of weights from the left and one from the right. Where input and
    output have a common divisor, as 512 and 224 have 32, the weights repeat after 16 and 7 pixels, and the
    matrices are that small.

    Args:
        pixels: uint8 (height, width).
        width: Of the result.
        height: Of the result.

    Returns:
        uint8 (height, width), C-contiguous.

    Example:
        >>> area_resize(np.array([[0, 2], [4, 6]], np.uint8), 1, 1)
        array([[3]], dtype=uint8)
    """
    rows, columns = pixels.shape
    down, across = math.gcd(rows, height), math.gcd(columns, width)
    products = height / down + height * width / (rows * across)
    if height > rows or width > columns or products > _MOST_PRODUCTS:
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    blocks = pixels.astype(np.float32).reshape(down, rows // down, columns)
    squeezed = np.matmul(_weights(rows // down, height // down), blocks)
    # A product a block: on a large one BLAS starts threads, which cost more than they bring.
    squeezed = squeezed.reshape(down, -1, columns // across)
    means = np.matmul(squeezed, _weights(columns // across, width // across).T)
    return np.asarray(np.rint(means), np.uint8).reshape(height, width)


@lru_cache(maxsize=64)
def _weights(size: int, result: int) -> npt.NDArray[np.float32]:
    """float32 (result, size): the share of each of `size` pixels in each of `result` means."""
    edges = np.arange(result + 1)[:, None] * (size / result)
    pixel = np.arange(size)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.asarray(np.clip(covered, 0, None) * (result / size), np.float32)
