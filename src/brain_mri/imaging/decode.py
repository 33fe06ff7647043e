"""The only decoder of the project: bytes of an image file in, checked 8-bit grey pixels out.

Everything that reads a scan (ingestion, preprocessing, serving) comes through `decode_grey`, so that a file
is accepted or refused, and looks, the same everywhere; photographs share its checks. The content decides what
a file is; its name is never looked at.

Two libraries share the work. Pillow reads every header without decoding, so that limits hold before memory is
spent, and decodes what is rare. OpenCV decodes JPEG, which is nearly everything here, a fifth faster: both
use libjpeg-turbo and take its luma channel, and the tests hold them to equal pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

GreyPixels: TypeAlias = npt.NDArray[np.uint8]

REFUSAL_REASONS: dict[str, str] = {
    "empty": "the file has no bytes",
    "too_large": "the file has more bytes than allowed",
    "not_an_image": "the content is no image of a known format",
    "too_many_pixels": "the header claims more pixels than allowed (a decompression bomb?)",
    "too_many_passes": "the JPEG is cut into so many passes that decoding it could take hours",
    "too_small": "a side is shorter than allowed",
    "several_frames": "the file is animated or holds several pages",
    "unsupported_mode": "the colour mode has no defined conversion to grey",
    "damaged": "the content is truncated or damaged",
    "blank": "the picture has no contrast",
}
"""Every `RefusedImage.reason`, with its meaning for people."""

# Pillow's other formats are left out on purpose: some start helper programs, none is used for scans.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO is a JPEG with further pictures behind it, as telephones write it
_BYTE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_BITS = {"1": 1, "I": 32, "F": 32}
_ORIENTATION_TAG = 0x0112
# A progressive JPEG has about ten passes. Each costs a walk over all pixels, whatever its own few bytes
# (libjpeg-turbo project, "Two Issues with the JPEG Standard", 2015).
_MAX_JPEG_PASSES = 200
_JPEG_PASS_MARKER = b"\xff\xda"
_JPEG_DIVISORS = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}


class RefusedImage(ValueError):  # noqa: N818  (it names what happened to the image)
    """An image that cannot or must not be used; `str()` of it is a sentence for people.

    Attributes:
        reason: one of the keys of `REFUSAL_REASONS`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, so that it survives the way between processes
        self.reason = reason
        self._message = message

    def __str__(self) -> str:
        return self._message


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may be like; the defaults are far from any sensible scan.

    Attributes:
        max_bytes: longest file, in bytes.
        max_pixels: largest width × height in the header. Pillow itself refuses more than about 179 million.
        min_side: shortest width or height, in pixels.
        min_contrast: smallest difference between the brightest and the darkest grey level (0 to 255).
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 25_000_000
    min_side: int = 32
    min_contrast: int = 16


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True)
class GreyImage:
    """A decoded image.

    Attributes:
        pixels: uint8, (height, width), C-contiguous, upright (the EXIF orientation is applied).
        mode: Pillow's name of the stored mode, such as `L`, `RGB`, `P`, `I;16`.
        format: Pillow's name of the format, such as `JPEG`, `PNG`.
        bit_depth: stored bits per sample: 1, 8, 16 or 32.
    """

    pixels: GreyPixels
    mode: str
    format: str
    bit_depth: int


def decode_grey(content: bytes, limits: DecodeLimits = DEFAULT_LIMITS, at_least: int = 0) -> GreyImage:
    """Decode an image file to upright 8-bit grey pixels, or refuse it.

    - Colour becomes luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); a JPEG's is stored as such.
    - Transparency is laid over black, the background of a scan.
    - Grey of more than 8 bits is stretched from its own lowest and highest value to 0 … 255, because 12-bit
      scans in 16-bit files would turn black otherwise. Integers that span less than 256 levels are shifted,
      not stretched, so that noise is not blown up. Colour of 16 bits keeps its high byte.
    - Several frames or pages are refused: taking the first would drop the others in silence.
    - Truncated files are refused, a JPEG without its end marker too. Damage inside a JPEG that still decodes
      to the end cannot be seen; libjpeg may write a line about it to standard error.

    Args:
        content: the whole file.
        limits: what to refuse; checked before decoding wherever the header tells.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, as far as that divides
            its sides and leaves `at_least` pixels of each; 0 decodes all of it. libjpeg then computes fewer
            pixels from the same coefficients, close to averages of the pixels that they stand for.

    Returns:
        The pixels with what the header says about them.

    Raises:
        RefusedImage: whatever is wrong with the content; nothing else is raised because of it.
        MemoryError: the machine is short of memory.

    Example:
        >>> decode_grey(Path("scan.jpg").read_bytes()).pixels.shape
        (512, 512)
    """
    with opened(content, limits) as image:
        return _decode(image, content, limits, at_least)


@contextmanager
def opened(content: bytes, limits: DecodeLimits) -> Iterator[ImageFile.ImageFile]:
    """Open an image file, not decoded yet, whose header is within the limits.

    Whatever is wrong with the content, here or inside the `with` block, becomes a `RefusedImage`.

    Raises:
        RefusedImage: It cannot or must not be used.
        MemoryError: The machine is short of memory, which says nothing about the image.
    """
    if not content:
        raise RefusedImage("empty", "The file is empty: 0 bytes.")
    if len(content) > limits.max_bytes:
        raise RefusedImage(
            "too_large", f"The file has {len(content):,} bytes; at most {limits.max_bytes:,} are allowed."
        )
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        _check_header(image, limits)
        yield image
    except (RefusedImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise RefusedImage("not_an_image", f"The content is none of {', '.join(_FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedImage("too_many_pixels", f"Pillow refuses the header: {error}") from error
    except Exception as error:  # decoders raise nearly anything on damaged content
        raise RefusedImage("damaged", f"The image cannot be decoded: {error}") from error


def is_plain_jpeg(image: Image.Image) -> bool:
    """Whether OpenCV decodes it: a JPEG in grey or in colours, none for printers."""
    return image.format in _JPEG_FORMATS and image.mode in {"L", "RGB"}


def decode_jpeg(content: bytes, flags: int) -> npt.NDArray[np.uint8]:
    """Decode a JPEG by OpenCV, as it lies: its EXIF orientation is passed over.

    Args:
        content: The whole file.
        flags: Of `cv2.imdecode`.

    Raises:
        RefusedImage: It is damaged, or cut into too many passes.
    """
    passes = content.count(_JPEG_PASS_MARKER)
    if passes > _MAX_JPEG_PASSES:
        raise RefusedImage(
            "too_many_passes", f"The JPEG has {passes:,} passes; at most {_MAX_JPEG_PASSES} are decoded."
        )
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise RefusedImage(
            "damaged", "The JPEG is truncated or damaged: its pixels end before its end marker."
        )
    return np.asarray(pixels, np.uint8)


def load_pillow(image: ImageFile.ImageFile, content: bytes) -> tuple[Image.Image, int]:
    """Decode what is no plain JPEG by Pillow; what is transparent lies over black.

    Returns:
        The decoded image as it lies, and its EXIF orientation.

    Raises:
        Exception: Nearly anything, where it is damaged; within `opened` that is a refusal.
    """
    loaded: Image.Image = image
    if image.format == "PNG":
        image.verify()  # loading alone passes over wrong checksums and a missing end
        loaded = Image.open(io.BytesIO(content), formats=("PNG",))
    loaded.load()
    orientation = orientation_of(loaded)
    if loaded.has_transparency_data and loaded.mode not in WIDE_MODES:
        opaque = Image.new("RGBA", loaded.size, "black")
        opaque.alpha_composite(loaded.convert("RGBA"))
        return opaque, orientation
    return loaded, orientation


def _decode(image: ImageFile.ImageFile, content: bytes, limits: DecodeLimits, at_least: int) -> GreyImage:
    mode, format_name, bit_depth = image.mode, str(image.format), _bit_depth(image)
    width, height = image.size
    shrunk = 1
    if is_plain_jpeg(image):
        orientation = orientation_of(image)
        shrunk = _divisor(width, height, at_least)
        pixels = decode_jpeg(content, _JPEG_DIVISORS.get(shrunk, cv2.IMREAD_GRAYSCALE))
    else:
        loaded, orientation = load_pillow(image, content)
        wide = loaded.mode in WIDE_MODES
        pixels = stretch(np.asarray(loaded)) if wide else np.asarray(loaded.convert("L"), np.uint8)
    expected = (height // shrunk, width // shrunk)
    if pixels.shape not in (expected, expected[::-1]):
        raise RefusedImage(
            "damaged",
            f"The header promises {width}×{height} pixels, decoding at 1/{shrunk} gave {pixels.shape[::-1]}.",
        )
    pixels = np.ascontiguousarray(upright(pixels, orientation))
    darkest, brightest, _, _ = cv2.minMaxLoc(pixels)
    if brightest - darkest < limits.min_contrast:
        if shrunk > 1:  # fine detail may be all the contrast there is
            return _decode(image, content, limits, 0)
        raise blank(int(darkest), int(brightest), limits)
    return GreyImage(pixels, mode, format_name, bit_depth)


def blank(darkest: int, brightest: int, limits: DecodeLimits) -> RefusedImage:
    """The refusal of a picture that shows nothing."""
    return RefusedImage(
        "blank",
        f"All grey levels lie within {darkest} … {brightest}; "
        f"a contrast of at least {limits.min_contrast} is expected.",
    )


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise RefusedImage(
            "too_many_pixels",
            f"The header claims {width}×{height} pixels; at most {limits.max_pixels:,} are allowed.",
        )
    if min(width, height) < limits.min_side:
        raise RefusedImage(
            "too_small", f"The image has {width}×{height} pixels; a side has at least {limits.min_side}."
        )
    if image.mode not in _BYTE_MODES + WIDE_MODES:
        raise RefusedImage("unsupported_mode", f"Mode {image.mode!r} has no defined conversion to grey.")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise RefusedImage(
            "several_frames", "The file holds several frames; store each as a file of its own."
        )


def _divisor(width: int, height: int, at_least: int) -> int:
    """The largest of 8, 4, 2 that divides both sides and leaves `at_least` pixels of each, else 1."""
    for divisor in _JPEG_DIVISORS if at_least else ():
        if width % divisor == height % divisor == 0 and min(width, height) >= divisor * at_least:
            return divisor
    return 1


_AT_ONCE = 2**20
"""Values that are stretched at a time."""


def stretch(values: npt.NDArray[np.number]) -> GreyPixels:
    """Map the range of wide values to 0 … 255; values that are not finite become the lowest."""
    stretched = np.zeros(values.shape, np.uint8)
    flat, result = values.reshape(-1), stretched.reshape(-1)
    parts = [slice(first, first + _AT_ONCE) for first in range(0, flat.size, _AT_ONCE)]
    ranges = []
    for each in parts:  # of a hundred million pixels whole copies as float64 would take gigabytes
        wide = flat[each].astype(np.float64)
        finite = wide[np.isfinite(wide)]
        if finite.size:
            ranges.append((float(finite.min()), float(finite.max())))
    if not ranges:
        return stretched
    low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
    span = high - low
    if np.issubdtype(values.dtype, np.integer):
        span = max(span, 255.0)
    for each in parts:
        wide = flat[each].astype(np.float64)
        scaled = (np.where(np.isfinite(wide), wide, low) - low) * (255.0 / span if span else 0.0)
        result[each] = np.rint(scaled)
    return stretched


def _bit_depth(image: ImageFile.ImageFile) -> int:
    """Bits per stored sample: 16-bit colour hides in what Pillow is about to unpack, not in its mode."""
    unpacking = str(image.tile[0].args) if image.tile else ""
    if image.mode.startswith("I;16") or (image.format in ("PNG", "TIFF") and ";16" in unpacking):
        return 16
    return _BITS.get(image.mode, 8)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where there is none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata does not spoil good pixels
        return 1


def upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Undo an EXIF orientation (CIPA DC-008, tag 274); unknown values mean upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
