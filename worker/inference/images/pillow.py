"""Decodes GIF, AVIF, HEIC, TIFF and animated WebP: what OpenCV lacks or gets wrong.

Limits apply to what the file's header states, before any pixel.
"""

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import cv2
import numpy as np
import pi_heif
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from jobs.item_codes import FoundFormat, ItemCode
from worker.inference.images.avif import coded_sizes
from worker.inference.images.cost import decode_seconds
from worker.inference.images.exif import ORIENTATION_TAG, UPRIGHT
from worker.inference.images.limits import DecodeError, ImageLimits, SlowImage, check_size
from worker.inference.images.pixels import Decoded, DecodeHints, Pixels, on_white, upright
from worker.inference.images.quiet import quiet_stderr
from worker.inference.images.tiff import first_page

PILLOW_FORMATS = {
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
    "image/heic": "HEIF",
    "image/tiff": "TIFF",
}
_BAND_ROWS = 256
_FIRST_IS_THE_PICTURE = frozenset(("image/heic", "image/tiff"))  # the others are pages or side pictures, no animation

_AVIF_EXIF = re.compile(rb"(infe[\x02\x03].{7}(?:..)?)Exif", re.DOTALL)
"""The entry of an AVIF's EXIF data. It is renamed, so that odd EXIF data refuses no picture: nobody here reads it, the
orientation stands elsewhere."""

_SIZE_BOX = re.compile(rb"\0\0\0\x14ispe\0{4}(.{8})", re.DOTALL)
"""Of a HEIC or AVIF: the width and height of one of its pictures."""

_MAJOR_BRANDS: dict[str, tuple[bytes, ...]] = {
    "image/avif": (b"avif", b"avis"),
    "image/heic": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
}
"""That the decoders know. They refuse a file with another one, whatever its compatible brands say."""

# Threads of decoders would compete with the other worker processes.
pi_heif.options.DECODE_THREADS = 1
pi_heif.register_heif_opener(thumbnails=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def decode_with_pillow(
    data: bytes | memoryview, media_type: str, limits: ImageLimits, hints: DecodeHints, orientation: int = UPRIGHT
) -> Pixels:
    """Raises DecodeError if a limit is exceeded, SlowImage, and whatever Pillow raises on damage."""
    if media_type in _MAJOR_BRANDS:
        data = _with_known_brand(data, *_MAJOR_BRANDS[media_type])
    if media_type == "image/avif":
        data = _AVIF_EXIF.sub(rb"\1free", data)
    if media_type == "image/tiff":
        data, orientation = first_page(data)
    with _pillow(limits.pixels_max), quiet_stderr():
        image = _opened(data, media_type, limits)
        check_size(*image.size, limits)
        animated = media_type not in _FIRST_IS_THE_PICTURE and getattr(image, "is_animated", False)
        if animated and getattr(image, "n_frames", 1) > limits.frames_max:
            raise DecodeError(ItemCode.TOO_MANY_FRAMES)
        stated = image.width * image.height
        coded = _coded_pixels(data, limits, one_frame=not animated) if media_type == "image/avif" else 0
        if decode_seconds(media_type, max(stated, coded)) > limits.seconds_max:
            raise SlowImage
        if media_type == "image/avif":
            orientation = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
        pixels = _gray_or_rgb(image, hints)
    if hints.as_the_book and pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return upright(pixels, orientation)


def _opened(data: bytes | memoryview, media_type: str, limits: ImageLimits) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=(PILLOW_FORMATS[media_type],))
    except UnidentifiedImageError:
        # libavif refuses more than 16,384 × 16,384 pixels by itself, in the same way as a damaged file.
        for found in _SIZE_BOX.finditer(data):
            width, height = struct.unpack(">II", found[1])
            check_size(width, height, limits)
        raise
    if data[8:12] == b"avis" and getattr(image, "n_frames", 1) == 1:
        return _opened(_with_known_brand(data, b"avif"), media_type, limits)  # of a picture, the coded size is known
    return image


def _coded_pixels(avif: bytes | memoryview, limits: ImageLimits, *, one_frame: bool) -> int:
    sizes = coded_sizes(avif)
    if one_frame and not sizes:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    for size in sizes:
        check_size(*size, limits)
    return max((width * height for width, height in sizes), default=0)  # transparency, an item beside, is in the cost


def _with_known_brand(data: bytes | memoryview, *known: bytes) -> bytes | memoryview:
    return data if bytes(data[8:12]) in known else b"".join((data[:8], known[0], data[12:]))


def _gray_or_rgb(image: Image.Image, hints: DecodeHints) -> Decoded:
    """Band by band: each step of a conversion would be another copy of up to 50 megapixels."""
    if image.mode in ("I", "F"):
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT, FoundFormat.TIFF_32_BIT)
    image.load()
    width, height = image.size
    gray = image.mode in ("1", "L", "I;16", "I;16L", "I;16B") and not image.has_transparency_data
    pixels = np.empty((height, width) if gray else (height, width, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        pixels[top:bottom] = _band(image.crop((0, top, width, bottom)), hints)
    return pixels


def _band(image: Image.Image, hints: DecodeHints) -> Decoded:
    if image.mode.startswith("I;16"):
        return cv2.convertScaleAbs(np.array(image), alpha=1 / 257)
    if not image.has_transparency_data:
        return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    rgba = np.array(image.convert("RGBA"))
    rgb = np.ascontiguousarray(rgba[:, :, :3])
    return rgb if hints.as_the_book else on_white(rgb, rgba[:, :, 3])


@contextmanager
def _pillow(pixels_max: int) -> Iterator[None]:
    """Pillow refuses images of more than twice these pixels. It warns of damage, with which uploads could fill the log.

    `check_size` alone would be too late for a GIF: Pillow allocates its first frame on opening it.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels_max
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
