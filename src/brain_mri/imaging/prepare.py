"""The image work between a file and a network: training, evaluation and serving all do it here, alike."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from brain_mri.imaging.decode import DEFAULT_LIMITS, DecodeLimits, GreyPixels, decode_grey
from brain_mri.imaging.resize import area_resize

_HEAD_MARGIN = 0.02  # of the box's longer side, so that the skin is not cut
_SMALLEST_HEAD = 0.1  # of the picture's area; less is no head but a label or a lesion
_CLAHE_CLIP_LIMIT = 2.0
_CLAHE_TILES = (8, 8)


@dataclass(frozen=True)
class PrepareOptions:
    """How a scan becomes a network's input.

    Attributes:
        image_size: height and width of the result, in pixels.
        crop_to_head: cut away the dark surroundings of the head first.
        clahe: even out contrast locally at the end.
    """

    image_size: int = 224
    crop_to_head: bool = False
    clahe: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(
                f"image_size is {self.image_size}; give the side of the result in pixels, such as 224."
            )


DEFAULT_OPTIONS = PrepareOptions()


def prepare_scan(
    content: bytes,
    options: PrepareOptions = DEFAULT_OPTIONS,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> GreyPixels:
    """Decode a file and prepare its pixels: `decode_grey`, then `prepare_pixels`.

    A JPEG with sides of at least four times `image_size` is decoded at a smaller size (see `decode_grey`),
    unless it is cropped or its contrast evened out. The result then differs from that of full decoding by at
    most one grey level in the mean over a scan.

    Args:
        content: the whole file.
        options: what to do.
        limits: what to refuse.

    Returns:
        uint8 (image_size, image_size), C-contiguous.

    Raises:
        RefusedImage: the content is no usable image.

    Example:
        >>> prepare_scan(Path("scan.jpg").read_bytes(), PrepareOptions(image_size=160)).shape
        (160, 160)
    """
    # Twice the result's size, so that averaging still has something to average. A crop may need all pixels,
    # and evening out contrast would enlarge the difference.
    at_least = 0 if options.crop_to_head or options.clahe else 2 * options.image_size
    return prepare_pixels(decode_grey(content, limits, at_least).pixels, options)


def prepare_pixels(grey: GreyPixels, options: PrepareOptions = DEFAULT_OPTIONS) -> GreyPixels:
    """Crop (if asked), resize by area averaging, even out contrast (if asked).

    The aspect ratio is not kept. Averaging over areas lets no detail alias when shrinking; where a side is
    enlarged, OpenCV's `INTER_AREA` interpolates linearly between the nearest pixels instead.

    Args:
        grey: uint8 (height, width).
        options: what to do.

    Returns:
        uint8 (image_size, image_size), C-contiguous, 0 to 255; scaling to a network's range is the network's
        first layer.
    """
    if options.crop_to_head:
        grey = crop_to_head(grey)
    prepared = area_resize(grey, options.image_size, options.image_size)
    if options.clahe:
        prepared = even_contrast(prepared)
    return np.ascontiguousarray(prepared)


def crop_to_head(grey: GreyPixels) -> GreyPixels:
    """Cut uint8 (height, width) pixels to :func:`head_box`."""
    return grey[head_box(grey)]


def head_box(grey: GreyPixels) -> tuple[slice, slice]:
    """Rows and columns of the head, with a small margin.

    Those of the whole picture where no head can be told from its surroundings; one that is tight already
    loses nothing.

    Args:
        grey: uint8 (height, width).
    """
    found = _find_head(grey)
    if found is None:
        return slice(None), slice(None)
    left, top, width, height = cv2.boundingRect(found)
    margin = round(_HEAD_MARGIN * max(width, height))
    rows = slice(max(top - margin, 0), top + height + margin)
    return rows, slice(max(left - margin, 0), left + width + margin)


def head_mask(grey: GreyPixels) -> npt.NDArray[np.bool_]:
    """Where the head is, dark cavities inside it included.

    Args:
        grey: uint8 (height, width).

    Returns:
        bool of the same shape; True everywhere where no head can be told from its surroundings.

    Example:
        >>> picture = np.zeros((64, 64), np.uint8)
        >>> picture[16:48, 16:48] = 200
        >>> picture[30:34, 30:34] = 0
        >>> int(head_mask(picture).sum())
        1024
    """
    found = _find_head(grey)
    if found is None:
        return np.ones(grey.shape, np.bool_)
    outlines, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros_like(found), outlines, -1, 1, cv2.FILLED) > 0)


def _find_head(grey: GreyPixels) -> npt.NDArray[np.uint8] | None:
    """The largest bright connected part as 0 and 1; None where no part covers a tenth of the area.

    Bright means above half of Otsu's threshold (N. Otsu, "A Threshold Selection Method from Gray-Level
    Histograms", 1979) of the smoothed picture: that keeps grey matter and skin and leaves out the noise of
    the air.
    """
    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    otsu, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = (smooth > otsu / 2).astype(np.uint8)
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(bright)
    areas = statistics[1:, cv2.CC_STAT_AREA]  # the first is the background
    if not len(areas) or areas.max() < _SMALLEST_HEAD * grey.size:
        return None
    return np.asarray(parts == 1 + areas.argmax(), np.uint8)


def even_contrast(grey: GreyPixels) -> GreyPixels:
    """Contrast-limited adaptive histogram equalisation of uint8 (height, width) pixels.

    Clip limit 2, 8×8 tiles (K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems
    IV, 1994).
    """
    return np.asarray(cv2.createCLAHE(_CLAHE_CLIP_LIMIT, _CLAHE_TILES).apply(grey), np.uint8)
