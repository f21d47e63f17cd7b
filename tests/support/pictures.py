"""Images for tests, made from Fashion-MNIST images."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worker.inference.images.decode import ImageLimits
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


def bad_pictures(shirt: bytes) -> dict[str, tuple[bytes, str]]:
    """Uploads that cannot be classified, each with the code for its item."""
    frames = [Image.new("L", (28, 28), shade) for shade in range(0, 250, 5)]
    huge = png_that_claims(50_000, 50_000)
    assert len(huge) < 20_000
    colour = photo(shirt)
    return {
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
                frames[0].convert("RGB"), "WEBP", save_all=True, append_images=[f.convert("RGB") for f in frames[1:5]]
            ),
            "too_many_frames",
        ),
        "TIFF": (encode(colour, "TIFF"), "unsupported_format"),
        "AVIF": (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1", "unsupported_format"),
        "zip": (b"PK\x03\x04" + bytes(100), "unsupported_format"),
    }


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
    }
