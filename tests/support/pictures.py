"""Images for tests, made from Fashion-MNIST images."""

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from tests.support.odd_tiffs import tiff
from worker.inference.images.limits import ImageLimits
from worker.inference.settings import InferenceSettings

LIMITS = ImageLimits.of(InferenceSettings())  # the defaults of a worker
DATA = Path(__file__).parents[1] / "data"


def samples() -> dict[str, bytes]:
    """The images under tests/data: 30 test images of Fashion-MNIST, dark on white."""
    return {path.name: path.read_bytes() for path in sorted(DATA.glob("*.png"))}


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def photo(png: bytes, *, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A photo-like rendition: large, tinted, slightly noisy, the object centred on white."""
    small = Image.open(BytesIO(png)).convert("L")
    side = min(size)
    large = small.resize((side, side), Image.Resampling.BICUBIC)
    scene = Image.new("L", size, 255)
    scene.paste(large, ((size[0] - side) // 2, (size[1] - side) // 2))
    gray = np.asarray(scene, dtype=np.int16)
    noise = np.random.default_rng(7).integers(-3, 4, (*gray.shape, 3))
    tint = np.array([0, -2, -6])
    return Image.fromarray(np.clip(gray[..., None] + noise + tint, 0, 255).astype(np.uint8), "RGB")


def png(width: int, height: int, data: bytes, *, kind: tuple[int, ...] = (8, 0, 0, 0, 0), more: bytes = b"") -> bytes:
    """A PNG of a header with this size and these five bytes, more chunks, one data chunk, and the end."""
    header = png_chunk(b"IHDR", struct.pack(">II5B", width, height, *kind))
    return b"\x89PNG\r\n\x1a\n" + header + more + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few kB whose header gives this size: its rows, at most 300, are white and compress well."""
    rows = zlib.compress((b"\x00" + b"\xff" * ((width + 7) // 8)) * min(height, 300), 9)
    return png(width, height, rows, kind=(1, 0, 0, 0, 0))


def jpeg_of_many_scans(image: Image.Image) -> bytes:
    """A progressive JPEG that repeats its last scan a hundred times."""
    jpeg = encode(image, "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * 100 + jpeg[-2:]


OTHER_FORMATS = {
    "JPEG XL": b"\xff\x0a",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "ICO": b"\x00\x00\x01\x00",
    "Photoshop file": b"8BPS",
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg">',
    "PDF": b"%PDF-1.7",
}
"""How files begin in formats that are told apart and not decoded."""


def heic(image: Image.Image, *others: Image.Image, **options: Any) -> bytes:
    """A HEIC of one or several pictures. With `primary_index`, another than the first is the one to be shown."""
    file, pictures = BytesIO(), pillow_heif.from_pillow(image)
    for other in others:
        pictures.add_from_pillow(other)
    pictures.save(file, format="HEIF", **options)
    return file.getvalue()


def ten_bit_heic(image: Image.Image) -> bytes:
    file, pixels = BytesIO(), np.asarray(image).astype("<u2") * 257
    pillow_heif.encode("RGB;16", image.size, pixels.tobytes(), file, quality=90)
    return file.getvalue()


def ten_bit_avif(image: Image.Image) -> bytes:
    pixels = np.asarray(image)[:, :, ::-1].astype(np.uint16) * 4
    written, data = cv2.imencode(".avif", pixels, [cv2.IMWRITE_AVIF_QUALITY, 95, cv2.IMWRITE_AVIF_DEPTH, 10])
    assert written
    return data.tobytes()


def branded(file: bytes, major: bytes) -> bytes:
    """A HEIC or AVIF that says what it is in its compatible brands alone."""
    return file[:8] + major + file[12:]


def jpeg_of_another_kind(jpeg: bytes, *, depth: int = 8, marker: int = 0xC0) -> bytes:
    """A JPEG whose header states another depth or coding."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 1] + bytes((marker,)) + jpeg[at + 2 : at + 4] + bytes((depth,)) + jpeg[at + 5 :]


def tiff_that_claims(width: int, height: int) -> bytes:
    """A TIFF of one strip whose header gives this size."""
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 100))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(104)


def heif_that_claims(width: int, height: int, whole: bytes) -> bytes:
    """This HEIC or AVIF with another size in its header."""
    at = whole.index(b"ispe") + 8
    return whole[:at] + struct.pack(">II", width, height) + whole[at + 8 :]


def webp_that_claims(width: int, height: int, whole: bytes) -> bytes:
    """This WebP on a canvas of this size."""
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + whole[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_that_claims(width: int, height: int, whole: bytes) -> bytes:
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


@cache
def bad_pictures(shirt: bytes) -> dict[str, tuple[bytes, str]]:
    """Uploads that cannot be classified, each with the code for its item."""
    frames = [Image.new("L", (28, 28), shade) for shade in range(0, 250, 5)]
    huge = png_that_claims(50_000, 50_000)
    assert len(huge) < 20_000
    colour = photo(shirt)
    return (
        {
            "empty": (b"", "empty_upload"),
            "text": (b"this is no picture", "not_an_image"),
            "text named .png": (b"hello, I am called shirt.png", "not_an_image"),
            "html": (b"<!doctype html><title>404</title>", "not_an_image"),
            "random bytes": (np.random.default_rng(1).bytes(5000), "not_an_image"),
            "truncated PNG": (shirt[: len(shirt) // 2], "corrupt_image"),
            "PNG signature alone": (shirt[:8], "corrupt_image"),
            "PNG with a broken checksum": (shirt[:60] + bytes((shirt[60] ^ 0xFF,)) + shirt[61:], "corrupt_image"),
            "truncated JPEG": (encode(colour, "JPEG")[:3000], "corrupt_image"),
            "50,000 × 50,000 PNG": (huge, "too_many_pixels"),
            "66,000 × 1 PNG": (encode(Image.new("L", (66_000, 1)), "PNG"), "too_many_pixels"),
            "JPEG with many scans": (jpeg_of_many_scans(colour), "too_many_scans"),
            "GIF with many frames": (
                encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20),
                "too_many_frames",
            ),
            "animated WebP": (
                encode(
                    frames[0].convert("RGB"),
                    "WEBP",
                    save_all=True,
                    append_images=[f.convert("RGB") for f in frames[1:5]],
                ),
                "too_many_frames",
            ),
            "AVIF header alone": (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1", "corrupt_image"),
            "truncated AVIF": (encode(colour, "AVIF")[:600], "corrupt_image"),
            "truncated HEIC": (heic(colour)[:600], "corrupt_image"),
            "truncated TIFF": (encode(colour, "TIFF")[:3000], "corrupt_image"),
            "AVIF sequence": (
                encode(frames[0].convert("RGB"), "AVIF", save_all=True, append_images=frames[1:3]),
                "too_many_frames",
            ),
            "50,000 × 50,000 TIFF": (tiff_that_claims(50_000, 50_000), "too_many_pixels"),
            "BigTIFF, big-endian": (tiff(colour, order=">", big=True), "unsupported_format"),
            "50,000 × 50,000 HEIC": (heif_that_claims(50_000, 50_000, heic(colour)), "too_many_pixels"),
            "50,000 × 50,000 AVIF": (heif_that_claims(50_000, 50_000, encode(colour, "AVIF")), "too_many_pixels"),
            "50,000 × 50,000 WebP": (webp_that_claims(50_000, 50_000, encode(colour, "WEBP")), "too_many_pixels"),
            "50,000 × 50,000 BMP": (bmp_that_claims(50_000, 50_000, encode(colour, "BMP")), "too_many_pixels"),
            "50,000 × 50,000 BMP, top row first": (
                bmp_that_claims(50_000, -50_000, encode(colour, "BMP")),
                "too_many_pixels",
            ),
            "HEIC of another size than it claims": (heif_that_claims(8, 8, heic(colour)), "corrupt_image"),
            "TIFF of floats": (encode(Image.new("F", (9, 9)), "TIFF"), "unsupported_format"),
            "zip": (b"PK\x03\x04" + bytes(100), "unsupported_format"),
        }
        | {f"{name}": (start + bytes(100), "unsupported_format") for name, start in OTHER_FORMATS.items()}
        | {
            "12-bit JPEG": (jpeg_of_another_kind(encode(colour, "JPEG"), depth=12), "unsupported_format"),
            "lossless JPEG": (jpeg_of_another_kind(encode(colour, "JPEG"), marker=0xC3), "unsupported_format"),
        }
    )


@cache
def good_pictures(shirt: bytes) -> dict[str, bytes]:
    """The shirt in other formats, all of which can be classified."""
    gray = Image.open(BytesIO(shirt)).convert("L")
    colour = photo(shirt)
    return {
        "gray PNG": shirt,
        "16-bit PNG": encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "PNG"),
        "RGB PNG": encode(colour, "PNG"),
        "RGBA PNG": encode(colour.convert("RGBA"), "PNG"),
        "gray with alpha PNG": encode(gray.convert("LA"), "PNG"),
        "palette PNG": encode(colour.convert("P"), "PNG"),
        "1-bit PNG": encode(gray.convert("1"), "PNG"),
        "JPEG": encode(colour, "JPEG", quality=85),
        "progressive JPEG": encode(colour, "JPEG", progressive=True),
        "CMYK JPEG": encode(colour.convert("CMYK"), "JPEG", quality=85),
        "WebP": encode(colour, "WEBP"),
        "GIF of one frame": encode(colour.convert("P"), "GIF"),
        "BMP": encode(colour, "BMP"),
        "HEIC": heic(colour, quality=90),
        "HEIC of 10 bits": ten_bit_heic(colour),
        "HEIC of brand mif1": branded(heic(colour, quality=90), b"mif1"),
        "HEIC with a thumbnail": heic(colour, quality=90, thumbnails=[96]),
        "HEIC whose second picture is the primary": heic(colour.rotate(90), colour, primary_index=1),
        "AVIF": encode(colour, "AVIF"),
        "AVIF of 10 bits": ten_bit_avif(colour),
        "AVIF of brand mif1": branded(encode(colour, "AVIF"), b"mif1"),
        "TIFF": encode(colour, "TIFF"),
        "TIFF of two pages": encode(colour, "TIFF", save_all=True, append_images=[colour.rotate(90)]),
        "TIFF of a scanner": encode(gray.resize((280, 280)).convert("1"), "TIFF", compression="group4"),
        "TIFF of 16 bits": encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "TIFF"),
        "CMYK TIFF": encode(colour.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    }
