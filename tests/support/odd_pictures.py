"""Whole pictures in files with odd metadata, as cameras, editors, scanners and broken programs write them."""

import struct
import zlib
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from tests.support.avif_files import avif_of
from tests.support.odd_tiffs import handmade_tiffs, negative_resolution, orientation, tiff
from tests.support.pictures import encode, heic, jpeg_of_many_scans, photo, png_chunk

SIZE = (120, 90)
_RATIONAL, _SIGNED_RATIONAL, _ASCII, _SHORT, _LONG = 5, 10, 2, 3, 4
ORIENTATION, X_RESOLUTION, MAKE, IMAGE_WIDTH = 0x0112, 0x011A, 0x010F, 0x0100


def picture(shirt: bytes) -> Image.Image:
    """What all of these files show."""
    return photo(shirt, size=SIZE)


def odd_pictures(shirt: bytes) -> dict[str, tuple[bytes, bytes]]:
    """By name: a file with odd metadata, and the same picture without any."""
    image = picture(shirt)
    bases = {
        "jpeg": encode(image, "JPEG", quality=90),
        "png": encode(image, "PNG"),
        "webp": encode(image, "WEBP", lossless=True),
        "bmp": encode(image, "BMP"),
        "gif": encode(image.convert("P"), "GIF"),
        "avif": encode(image, "AVIF"),
        "heic": heic(image),
        "tiff": encode(image, "TIFF"),
    }
    makers: dict[str, Any] = {"jpeg": _jpegs, "png": _pngs, "webp": _webps, "bmp": _bmps, "gif": _gifs} | {
        "avif": _avifs,
        "heic": _heics,
        "tiff": _tiffs,
    }
    return {
        f"{kind}: {name}": (odd, bases[kind]) for kind, make in makers.items() for name, odd in make(bases[kind], image)
    }


def turned_pictures(shirt: bytes) -> dict[str, tuple[bytes, bytes]]:
    """By format: a file whose orientation is 6, beside a rational of the wrong sign, and the file without both."""
    image = picture(shirt)
    data = exif((ORIENTATION, _SHORT, 1, struct.pack("<HH", 6, 0)), SIGNED_RESOLUTION, more=NEGATIVE)
    jpeg, png, webp = encode(image, "JPEG"), encode(image, "PNG"), encode(image, "WEBP", lossless=True)
    return {
        "JPEG": (jpeg[:2] + _segment(0xE1, b"Exif\0\0" + data) + jpeg[2:], jpeg),
        "PNG": (png[:33] + png_chunk(b"eXIf", data) + png[33:], png),
        "WebP": (_extended_webp(webp, image, 0x08, after=_webp_chunk(b"EXIF", data)), webp),
        "TIFF": (tiff(image, orientation(6), negative_resolution()), encode(image, "TIFF")),
        "BigTIFF": (tiff(image, orientation(6), negative_resolution(), big=True), encode(image, "TIFF")),
    }


def exif(*entries: tuple[int, int, int, bytes], order: str = "<", directory: int = 8, more: bytes = b"") -> bytes:
    """EXIF data of one directory with these entries: tag, type, count, value or offset (4 bytes)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    body = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(order + "HHI", tag, kind, count) + value
    return head + body + bytes(4) + more


UPRIGHT = (ORIENTATION, _SHORT, 1, struct.pack("<HH", 1, 0))
NEGATIVE = struct.pack("<ii", -72, 1)
SIGNED_RESOLUTION = (X_RESOLUTION, _SIGNED_RATIONAL, 1, b"\x26\0\0\0")


def odd_exif() -> dict[str, bytes]:
    """EXIF data that says nothing about the orientation, or that the picture is upright."""
    return {
        "signed resolution": exif(UPRIGHT, SIGNED_RESOLUTION, more=NEGATIVE),
        "rational make": exif((MAKE, _RATIONAL, 1, b"\x26\0\0\0"), UPRIGHT, more=NEGATIVE),
        "width in words": exif((IMAGE_WIDTH, _ASCII, 6, b"\x26\0\0\0"), UPRIGHT, more=b"wide\0\0"),
        "a value far outside": exif(UPRIGHT, (X_RESOLUTION, _RATIONAL, 1, b"\xff\xff\xff\x7f")),
        "a count of 4 billion": exif(UPRIGHT, (MAKE, _ASCII, 0xFFFF_FFFF, b"\x26\0\0\0")),
        "an unknown type": exif(UPRIGHT, (MAKE, 99, 1, b"\x26\0\0\0")),
        "a directory outside": exif(UPRIGHT, directory=60_000),
        "a directory in its header": exif(UPRIGHT, directory=0),
        "too many entries": exif(UPRIGHT)[:8] + b"\xff\xff" + exif(UPRIGHT)[10:],
        "cut in an entry": exif(UPRIGHT, UPRIGHT)[:-10],
        "cut in its header": b"II*\0\x08",
        "another byte order": b"IM*\0" + exif(UPRIGHT)[4:],
        "orientation 9": exif((ORIENTATION, _SHORT, 1, struct.pack("<HH", 9, 0))),
        "orientation 0": exif((ORIENTATION, _SHORT, 1, bytes(4))),
        "orientation as text": exif((ORIENTATION, _ASCII, 2, b"6\0\0\0")),
        "empty": b"",
    }


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _jpegs(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    start, rest = whole[:2], whole[2:]
    jfif_end = 4 + int.from_bytes(whole[4:6], "big")
    without_jfif = whole[jfif_end:]
    segments = {
        **{f"EXIF, {name}": _segment(0xE1, b"Exif\0\0" + data) for name, data in odd_exif().items()},
        "two EXIF segments": _segment(0xE1, b"Exif\0\0" + exif(UPRIGHT)) * 2,
        "XMP that is no XML": _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta" + bytes(200)),
        "cut ICC profile": _segment(0xE2, b"ICC_PROFILE\0"),
        "ICC profile in parts of which one is missing": _segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(500)),
        "cut Photoshop segment": _segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0"),
        "Photoshop segment that ends in a length": _segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\xff\xff"),
        "cut Adobe segment": _segment(0xEE, b"Adobe\0d"),
        "cut JFIF extension": _segment(0xE0, b"JFXX\0"),
        "a comment of 64 kB": _segment(0xFE, bytes(65_000)),
        "an MPF index of zeros": _segment(0xE2, b"MPF\0" + bytes(60)),
        "an unknown segment": _segment(0xEB, b"\xff\xd9" * 40),
        "fill bytes": b"\xff" * 9,
    }
    for name, segment in segments.items():
        yield name, start + segment + rest
    for length in (0, 4, 7, 12):
        yield f"JFIF cut to {length} bytes", start + _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"[:length]) + without_jfif
    preview = encode(image.resize((40, 30)), "JPEG")
    yield "no end marker", whole[:-2]
    yield "half an end marker", whole[:-1]
    yield "zeros behind it", whole + bytes(5000)
    yield "a preview behind it", whole + preview
    yield "a preview of many scans behind it", whole + jpeg_of_many_scans(image)
    yield (
        "MPF index and preview",
        encode(image, "MPO", quality=90, save_all=True, append_images=[image.resize((40, 30))]),
    )


def _pngs(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    header, rest = whole[:33], whole[33:]
    large = zlib.compress(bytes(2 << 20))
    chunks = {
        **{f"EXIF, {name}": png_chunk(b"eXIf", data) for name, data in odd_exif().items()},
        "gAMA of two bytes": png_chunk(b"gAMA", b"\0\1"),
        "gAMA of zero": png_chunk(b"gAMA", bytes(4)),
        "cut cHRM": png_chunk(b"cHRM", bytes(9)),
        "cHRM of zeros": png_chunk(b"cHRM", bytes(32)),
        "cut pHYs": png_chunk(b"pHYs", bytes(3)),
        "sRGB 9": png_chunk(b"sRGB", b"\x09"),
        "empty sRGB": png_chunk(b"sRGB", b""),
        "tRNS of three bytes": png_chunk(b"tRNS", bytes(3)),
        "iCCP of 2 MiB": png_chunk(b"iCCP", b"x\0\0" + large),
        "iCCP that is no zlib stream": png_chunk(b"iCCP", b"x\0\0" + bytes(40)),
        "iCCP without a name": png_chunk(b"iCCP", bytes(3)),
        "zTXt of 2 MiB": png_chunk(b"zTXt", b"x\0\0" + large),
        "zTXt that is no zlib stream": png_chunk(b"zTXt", b"x\0\0" + bytes(40)),
        "iTXt of 2 MiB": png_chunk(b"iTXt", b"x\0\1\0\0\0" + large),
        "XMP that is no XML": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta" + bytes(200)),
        "iTXt without an end": png_chunk(b"iTXt", b"Author"),
        "tEXt without a name": png_chunk(b"tEXt", b"\0\0\0"),
        "acTL of three bytes": png_chunk(b"acTL", bytes(3)),
        "acTL of no frames": png_chunk(b"acTL", bytes(8)),
        "acTL of a thousand frames that are not there": png_chunk(b"acTL", struct.pack(">II", 1000, 0)),
        "bKGD of one byte": png_chunk(b"bKGD", b"\x01"),
        "sBIT of zeros": png_chunk(b"sBIT", bytes(3)),
        "tIME in month 99": png_chunk(b"tIME", b"\x07\xd0\x63\x63\x63\x63\x63"),
        "cut sPLT": png_chunk(b"sPLT", b"palette\0\x08\1"),
        "a private chunk": png_chunk(b"prVt", bytes(1000)),
        "a wrong checksum of a text": png_chunk(b"tEXt", b"a\0b")[:-4] + bytes(4),
    }
    for name, chunk in chunks.items():
        yield name, header + chunk + rest
    yield "a thousand texts", header + png_chunk(b"tEXt", b"a\0b") * 1000 + rest
    yield "bytes behind its end", whole + b"\r\n" * 50
    # The image of a PNG is the first picture, also if it is no frame of the animation.
    for number, name in enumerate(("one frame", "two frames", "three frames"), 1):
        others = [image.rotate(30 * frame) for frame in range(1, 1 + number)]
        animation = encode(image, "PNG", save_all=True, default_image=True, append_images=others, duration=20)
        yield f"{name} of other pictures", animation


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _extended_webp(whole: bytes, image: Image.Image, flags: int, before: bytes = b"", after: bytes = b"") -> bytes:
    width, height = image.size
    canvas = bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + _webp_chunk(b"VP8X", canvas) + before + whole[12:] + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webps(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    extended = partial(_extended_webp, whole, image)
    for name, data in odd_exif().items():
        yield f"EXIF, {name}", extended(0x08, after=_webp_chunk(b"EXIF", data))
    yield "EXIF as in a JPEG", extended(0x08, after=_webp_chunk(b"EXIF", b"Exif\0\0" + exif(UPRIGHT)))
    yield "an ICC profile of zeros", extended(0x20, before=_webp_chunk(b"ICCP", bytes(100)))
    yield "XMP that is no XML", extended(0x04, after=_webp_chunk(b"XMP ", b"<x" + bytes(99)))
    yield "flags for parts that are not there", extended(0x2C)
    yield "an unknown part", extended(0, before=_webp_chunk(b"QQQQ", bytes(31)))
    yield "bytes behind its end", whole + bytes(100)
    yield "a cut part behind it", extended(0x08, after=b"EXIF\xff\xff\0\0II")


def _bmps(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "a wrong file size", whole[:2] + bytes(4) + whole[6:]
    yield "a wrong image size", whole[:34] + b"\1\0\0\0" + whole[38:]
    yield "a resolution of zero", whole[:38] + bytes(8) + whole[46:]
    yield "bytes behind its end", whole + bytes(100)
    for version, header_bytes in ((4, 108), (5, 124)):
        yield f"version {version}, 32 bits, no alpha", bmp_with_alpha(image, 0, header_bytes)
        yield f"version {version}, 32 bits, opaque", bmp_with_alpha(image, 255, header_bytes)


def bmp_with_alpha(image: Image.Image, alpha: int, header_bytes: int = 108) -> bytes:
    """A BMP of 32 bits with a mask for alpha, and this alpha in each pixel."""
    pixels = np.asarray(image.convert("RGB"))[::-1, :, ::-1]  # bottom row first, BGR
    rows = np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)]).tobytes()
    width, height = image.size
    start = 14 + header_bytes
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", header_bytes, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0) + masks
    header += b"BGRs" + bytes(header_bytes - len(header) - 4)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


def _gifs(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "a comment", encode(image.convert("P"), "GIF", comment=bytes(2000))
    yield "bytes behind its end", whole + bytes(100)
    file = BytesIO()
    image.convert("P").save(file, "GIF", loop=0)
    yield "a loop of one frame", file.getvalue()


def _with_exif(file: bytes, placeholder: bytes) -> Iterator[tuple[str, bytes]]:
    """A file whose EXIF data is replaced, at the same length."""
    start = file.index(placeholder)
    for name, data in odd_exif().items():
        same_length = data.ljust(len(placeholder), b"\0")
        yield f"EXIF, {name}", file[:start] + same_length + file[start + len(placeholder) :]


_PLACEHOLDER = exif((MAKE, _ASCII, 200, b"\x1a\0\0\0"), more=b"x" * 200)


def _avifs(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield from _with_exif(encode(image, "AVIF", exif=_PLACEHOLDER), _PLACEHOLDER)
    yield "an ICC profile of zeros", encode(image, "AVIF", icc_profile=bytes(200))
    yield "XMP that is no XML", encode(image, "AVIF", xmp=_XMP)
    yield from _with_bytes_behind(whole)
    side = image.rotate(180).resize((64, 48))
    yield "another picture", avif_of(image, side)
    yield "two others before it", avif_of(side, side, image, primary=2)
    yield "two thumbnails", avif_of(image, image.resize((64, 48)), image.resize((32, 24)), thumbnails=True)


def _heics(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield from _with_exif(heic(image, exif=_PLACEHOLDER), _PLACEHOLDER)
    yield "an ICC profile of zeros", heic(image, icc_profile=bytes(200))
    yield "XMP that is no XML", heic(image, xmp=_XMP)
    xmp = b'<x tiff:Orientation="1"/>'
    yield "XMP of another orientation", heic(image, xmp=xmp).replace(xmp, xmp.replace(b"1", b"6"))
    yield from _with_bytes_behind(whole)
    side = image.rotate(180).resize((64, 48))
    yield "another picture", heic(image, side)
    yield "two others before it", heic(side, side, image, primary_index=2)
    yield "two thumbnails", heic(image, thumbnails=[64, 32])


_XMP = b"<x:xmpmeta" + bytes(200)


def _with_bytes_behind(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """A file of boxes with more behind the last of them than a decoder may expect."""
    behind = {"zeros": bytes(100), "a line break": b"\r\n", "text": b"sent by my phone", "a cut box": b"\0\0\1\0mpvd.."}
    for name, more in behind.items():
        yield f"{name} behind its end", whole + more
    yield "a private box behind it", whole + struct.pack(">I4s", 108, b"mpvd") + bytes(100)


def _tiffs(whole: bytes, image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "an ICC profile of zeros", encode(image, "TIFF", icc_profile=bytes(200))
    yield "a description of 70 kB", encode(image, "TIFF", description="x" * 70_000)
    yield "a resolution of zero", encode(image, "TIFF", dpi=(0, 0))
    yield "a private tag", encode(image, "TIFF", tiffinfo={65_000: bytes(900)})
    yield "bytes behind its end", whole + bytes(100)
    yield "another page of another size", encode(image, "TIFF", save_all=True, append_images=[image.resize((9, 9))])
    yield from handmade_tiffs(image)
