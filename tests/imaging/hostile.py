"""Files that a scan folder may hold but should not: made by code, for every test that needs them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 120, 96


@dataclass(frozen=True)
class HostileFile:
    """A file, and the reason for which it is refused; no reason means that it must be accepted."""

    name: str
    content: bytes
    reason: str = ""


def picture(width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """A smooth uint8 (height, width) picture, 20 to 235, without any symmetry."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.asarray(20 + 215 * (0.6 * rows + 0.4 * columns**2), np.uint8)


def encode(pixels: npt.NDArray[Any] | Image.Image, format_name: str, **options: Any) -> bytes:
    """The bytes of a file in Pillow's `format_name`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def with_orientation(pixels: npt.NDArray[np.uint8], format_name: str, orientation: int) -> bytes:
    """A file whose EXIF data says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_name == "WEBP" else {}
    return encode(pixels, format_name, exif=exif, **options)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file with a right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of some hundred bytes whose header claims a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def slow_jpeg(passes: int = 5_000) -> bytes:
    """A progressive JPEG with one of its passes repeated: each costs time, none gives anything."""
    content = encode(picture(), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * passes + content[-2:]


def with_flipped_byte(content: bytes, position: int) -> bytes:
    """The content with all bits of one byte turned over."""
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def hostile_files() -> list[HostileFile]:
    """The whole corpus, the same bytes on every call; names are unique and may lie about the format."""
    grey = picture()
    colour = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    wide = grey.astype(np.uint16) * 16  # 12 bits used of 16
    palette = Image.fromarray(colour).quantize(64)
    transparent = Image.fromarray(np.dstack([colour, grey]))
    frames = [Image.fromarray(grey), Image.fromarray(grey[::-1].copy())]
    jpeg, png = encode(grey, "JPEG"), encode(grey, "PNG")
    animation = {"save_all": True, "append_images": frames[1:]}
    return [
        HostileFile("empty.jpg", b"", "empty"),
        HostileFile("zeros.jpg", bytes(5_000), "not_an_image"),
        HostileFile("notes.jpg", "Befund: unauffällig\n".encode() * 20, "not_an_image"),
        HostileFile(
            "page.jpg", b"<svg xmlns='http://www.w3.org/2000/svg' width='99' height='99'/>", "not_an_image"
        ),
        HostileFile("first_bytes.jpg", jpeg[:4], "not_an_image"),
        HostileFile("half_header.jpg", jpeg[:200], "damaged"),
        HostileFile("half.jpg", jpeg[: len(jpeg) // 2], "damaged"),
        HostileFile("half.png", png[: len(png) // 2], "damaged"),
        HostileFile("without_end.jpg", jpeg[:-2], "damaged"),
        HostileFile("without_end.png", png[:-12], "damaged"),
        HostileFile("wrong_checksum.png", with_flipped_byte(png, len(png) - 14), "damaged"),
        HostileFile("wrong_pixels.png", with_flipped_byte(png, len(png) // 2), "damaged"),
        HostileFile("half.tif", encode(grey, "TIFF")[:-3_000], "damaged"),
        HostileFile("half.bmp", encode(grey, "BMP")[:-3_000], "damaged"),
        HostileFile("bomb.png", png_bomb(), "too_many_pixels"),
        HostileFile("large.png", png_bomb(6_000, 6_000), "too_many_pixels"),
        HostileFile("slow.jpg", slow_jpeg(), "too_many_passes"),
        HostileFile("tiny.png", encode(picture(8, 8), "PNG"), "too_small"),
        HostileFile("line.png", encode(picture(500, 2), "PNG"), "too_small"),
        HostileFile("black.jpg", encode(np.zeros_like(grey), "JPEG"), "blank"),
        HostileFile("white.png", encode(np.full_like(grey, 255), "PNG"), "blank"),
        HostileFile(
            "transparent.png", encode(Image.new("RGBA", (WIDTH, HEIGHT), (200, 9, 9, 0)), "PNG"), "blank"
        ),
        HostileFile(
            "black_16_bit.png", encode(wide * 0 + np.arange(WIDTH, dtype=np.uint16) % 4, "PNG"), "blank"
        ),
        HostileFile("not_a_number.tif", encode(np.full(grey.shape, np.nan, np.float32), "TIFF"), "blank"),
        HostileFile("animated.gif", encode(frames[0], "GIF", **animation), "several_frames"),
        HostileFile("animated.png", encode(frames[0], "PNG", **animation), "several_frames"),
        HostileFile("animated.webp", encode(frames[0], "WEBP", **animation), "several_frames"),
        HostileFile("pages.tif", encode(frames[0], "TIFF", **animation), "several_frames"),
        HostileFile(
            "lab.tif", encode(Image.new("LAB", (WIDTH, HEIGHT), (90, 20, 30)), "TIFF"), "unsupported_mode"
        ),
        HostileFile("png_inside.jpg", png),
        HostileFile("jpeg_inside.png", jpeg),
        HostileFile("no_suffix", jpeg),
        HostileFile("trailing_text.jpg", jpeg + b"\n-- sent from a telephone"),
        HostileFile("progressive.jpg", encode(grey, "JPEG", progressive=True)),
        HostileFile("colour.jpg", encode(colour, "JPEG")),
        HostileFile("cmyk.jpg", encode(Image.fromarray(colour).convert("CMYK"), "JPEG")),
        HostileFile("two_pictures.jpg", encode(frames[0], "MPO", **animation)),
        HostileFile("wide.png", encode(wide, "PNG")),
        HostileFile("wide.tif", encode(wide, "TIFF")),
        HostileFile("float.tif", encode(grey.astype(np.float32) / 255, "TIFF")),
        HostileFile("palette.png", encode(palette, "PNG")),
        HostileFile("palette_transparent.png", encode(palette, "PNG", transparency=0)),
        HostileFile("still.gif", encode(palette, "GIF")),
        HostileFile("alpha.png", encode(transparent, "PNG")),
        HostileFile("grey_alpha.png", encode(transparent.convert("LA"), "PNG")),
        HostileFile("two_levels.png", encode(Image.fromarray(grey > 128), "PNG")),
        HostileFile("still.webp", encode(colour, "WEBP")),
        HostileFile("plain.bmp", encode(colour, "BMP")),
        HostileFile("plain.pgm", encode(grey, "PPM")),
        HostileFile("compressed.tif", encode(colour, "TIFF", compression="tiff_lzw")),
        HostileFile("turned.jpg", with_orientation(grey, "JPEG", 6)),
        HostileFile("turned.png", with_orientation(grey, "PNG", 6)),
        HostileFile("turned.tif", with_orientation(grey, "TIFF", 6)),
        HostileFile("turned.webp", with_orientation(grey, "WEBP", 6)),
    ]
