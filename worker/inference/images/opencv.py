"""Decodes PNG, JPEG, WebP and BMP."""

import cv2
import numpy as np

from worker.inference.images.container import Picture
from worker.inference.images.pixels import Decoded, DecodeHints, Pixels, on_white, upright
from worker.inference.images.quiet import quiet_stderr

# OpenCV's own threads would compete with the other worker processes. Its log would repeat what an item's code says.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_FILLER_BYTES = 64
_BAND_ROWS = 256
_REDUCED_GRAY = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_REDUCED_COLOUR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def decode_with_opencv(picture: Picture, media_type: str, hints: DecodeHints) -> Pixels | None:
    """The pixels, or None if they are damaged."""
    flags = _flags(picture, media_type, hints)
    pixels = _without_end(picture.data, flags) if picture.lacks_end else _imdecode(picture.data, flags)
    if pixels is None:
        return None
    if not hints.as_the_book:
        pixels = _gray_or_rgb(pixels, picture.transparent_level, opaque_if_all_zero=media_type == "image/bmp")
    return upright(pixels, picture.orientation)


def _imdecode(data: bytes | memoryview, flags: int) -> Decoded | None:
    with quiet_stderr():
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _without_end(jpeg: bytes | memoryview, flags: int) -> Decoded | None:
    """Decode a JPEG that has no end marker. None if pixels are missing, too.

    OpenCV fills the rest of half a picture up to an end marker with whatever it finds there. If all pixels are there,
    it finds them alike, whatever stands between the last of them and the marker.
    """
    data, end = bytes(jpeg).rstrip(b"\xff"), b"\xff\xd9"  # half an end marker may be there
    first = _imdecode(data + bytes(_FILLER_BYTES) + end, flags)
    second = _imdecode(data + b"\xaa" * _FILLER_BYTES + end, flags)
    return None if first is None or second is None or not np.array_equal(first, second) else first


def _flags(picture: Picture, media_type: str, hints: DecodeHints) -> int:
    """How OpenCV is to decode a picture. It must not turn it: the orientation is read apart from the pixels."""
    if hints.as_the_book:
        return cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    if media_type != "image/jpeg":
        return cv2.IMREAD_UNCHANGED
    if picture.components == 1:
        full, reduced = cv2.IMREAD_GRAYSCALE, _REDUCED_GRAY
    elif hints.colours:
        full, reduced = cv2.IMREAD_COLOR, _REDUCED_COLOUR
    else:
        full, reduced = cv2.IMREAD_COLOR, _REDUCED_GRAY  # gray is then the JPEG's own luminance
    flags = reduced.get(_reduction(picture, hints), full)
    return flags | cv2.IMREAD_IGNORE_ORIENTATION


def _reduction(picture: Picture, hints: DecodeHints) -> int:
    """By how much a JPEG may be reduced: 1, 2, 4 or 8."""
    if not hints.width_min:
        return 1
    width, height = picture.width, picture.height
    if picture.orientation > 4:  # it lies on its side
        width, height = height, width
    times = min(width // hints.width_min, height // hints.height_min)
    return next((reduction for reduction in (8, 4, 2) if times >= reduction), 1)


def _gray_or_rgb(decoded: Decoded, transparent_level: int | None, *, opaque_if_all_zero: bool) -> Decoded:
    """From what OpenCV decodes: one, three (BGR) or four (BGRA) channels of 8 or 16 bits. Transparent is white.

    Band by band: a second copy of 50 megapixels in 16 bits would be 400 MB.
    """
    if decoded.ndim == 2 and decoded.dtype == np.uint8 and transparent_level is None:
        return decoded
    opaque = opaque_if_all_zero and decoded.ndim == 3 and decoded.shape[2] == 4 and not decoded[:, :, 3].any()
    pixels = np.empty(decoded.shape[:2] if decoded.ndim == 2 else (*decoded.shape[:2], 3), np.uint8)
    for top in range(0, len(decoded), _BAND_ROWS):
        band = decoded[top : top + _BAND_ROWS]
        pixels[top : top + _BAND_ROWS] = _gray_band(band, transparent_level) if band.ndim == 2 else _rgb(band, opaque)
    return pixels


def _gray_band(decoded: Decoded, transparent_level: int | None) -> Decoded:
    pixels = _eight_bits(decoded)
    return pixels if transparent_level is None else np.where(decoded == transparent_level, np.uint8(255), pixels)


def _rgb(decoded: Decoded, opaque: bool) -> Decoded:  # noqa: FBT001 - its one caller is above
    """`opaque`: ignore the alpha channel."""
    pixels = _eight_bits(decoded)
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    rgb = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    return rgb if opaque else on_white(rgb, pixels[:, :, 3])


def _eight_bits(pixels: Decoded) -> Decoded:
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=1 / 257)
