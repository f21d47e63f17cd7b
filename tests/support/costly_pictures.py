"""Pictures that cost a decoder far more than their bytes suggest, each within the limits of one upload."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from tests.support.pictures import heic

MIB = 1 << 20
SIDE_PIXELS_MAX = 7071  # squared, just under the 50 megapixels that ITEM_PIXELS_MAX allows
_COLOURS: dict[str, Any] = {"RGB": (120, 30, 70), "RGBA": (120, 30, 70, 90), "CMYK": (1, 2, 3, 4), "P": 1}
_GIF_HEAD = b"\x80\0\0" + b"\0\0\0\xff\xff\xff"  # two colours


def flat(format_: str, side: int, mode: str = "RGB", **options: Any) -> bytes:
    """A picture of one colour."""
    file = BytesIO()
    Image.new(mode, (side, side), _COLOURS[mode]).save(file, format_, **options)
    return file.getvalue()


def flat_png(side: int, *, colour_type: int = 6, depth: int = 8) -> bytes:
    """A black picture. `colour_type`: 0 is gray, 2 is RGB, 6 is RGBA."""
    compress, row = zlib.compressobj(9), bytes(1 + side * {0: 1, 2: 3, 6: 4}[colour_type] * depth // 8)
    data = b"".join(compress.compress(row) for _ in range(side)) + compress.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND")


FLAT: dict[str, Callable[[int], bytes]] = {
    "RGBA PNG": flat_png,
    "RGB WebP without loss": lambda side: flat("WEBP", side, lossless=True, method=0, quality=0),
    "RGBA WebP": lambda side: flat("WEBP", side, "RGBA", method=0, quality=0),
    "GIF": lambda side: flat("GIF", side, "P"),
    "AVIF": lambda side: flat("AVIF", side, speed=10, subsampling="4:4:4"),
    "RGBA AVIF": lambda side: flat("AVIF", side, "RGBA", speed=10),
    "HEIC": lambda side: heic(Image.new("RGB", (side, side), _COLOURS["RGB"])),
    "RGBA TIFF": lambda side: flat("TIFF", side, "RGBA", compression="tiff_lzw"),
    "CMYK TIFF": lambda side: flat("TIFF", side, "CMYK", compression="tiff_deflate"),
    "progressive CMYK JPEG": lambda side: flat("JPEG", side, "CMYK", progressive=True),
}
"""Pictures of one colour by format and kind of pixels, of so many pixels a side: what costs most."""


def png_chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _jpeg(size: int, segment: bytes) -> bytes:
    return b"\xff\xd8" + segment * (size // len(segment)) + flat("JPEG", 28)[2:]


def _png(size: int) -> bytes:
    whole, chunk = flat_png(28), png_chunk(b"teXt")
    return whole[:33] + chunk * (size // len(chunk)) + whole[33:]


def _png_data_in_bytes() -> bytes:
    side = 1000
    data = zlib.compress(bytes(side * (1 + side)), 0)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    chunks = b"".join(png_chunk(b"IDAT", bytes((byte,))) for byte in data[:100_000])
    return b"\x89PNG\r\n\x1a\n" + header + chunks + png_chunk(b"IDAT", data[100_000:]) + png_chunk(b"IEND")


def _webp(size: int) -> bytes:
    body = flat("WEBP", 28)[12:] + b"JUNK\0\0\0\0" * (size // 8)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _gif(size: int, block: bytes, *, in_picture: bool = False) -> bytes:
    """`block` many times before the picture, or instead of its data."""
    screen, blocks = struct.pack("<HH", 28, 28), block * (size // len(block))
    head, frame = b"GIF89a" + screen + _GIF_HEAD, b"," + struct.pack("<HHHHB", 0, 0, 28, 28, 0)
    if in_picture:
        return head + frame + b"\x07" + blocks + b"\0;"
    return head + blocks + frame + b"\x02\x02\x44\x01\0;"


PARTS: dict[str, Callable[[], bytes]] = {
    "JPEG of Exif segments": lambda: _jpeg(5 * MIB, b"\xff\xe1\x00\x40Exif\0\0" + bytes(56)),
    "JPEG of empty segments": lambda: _jpeg(MIB // 4, b"\xff\xe5\x00\x02"),
    "PNG of empty chunks": lambda: _png(MIB),
    "PNG of one byte a chunk": _png_data_in_bytes,
    "WebP of empty chunks": lambda: _webp(MIB),
    "GIF of one byte a block": lambda: _gif(10 * MIB, b"\x01\x80", in_picture=True),
    "GIF of many comments": lambda: _gif(10 * MIB, b"!\xfe\x01x\0"),
    "GIF of many frames": lambda: _gif(10 * MIB, b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"),
}
"""Files of far more segments, chunks or blocks than a picture needs."""
