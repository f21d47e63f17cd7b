"""From the bytes of an upload to pixels. Format, size and frames are read from the file before any pixel.

OpenCV decodes most formats, Pillow the others (docs/decisions/0039-opencv.md).
"""

from PIL import Image

from jobs.item_codes import FOUND_FORMATS, FoundFormat, ItemCode
from jobs.media_types import sniff
from worker.inference.images.container import READERS
from worker.inference.images.cost import decode_seconds
from worker.inference.images.limits import DecodeError, ImageLimits, SlowImage, check_size
from worker.inference.images.opencv import decode_with_opencv
from worker.inference.images.pillow import PILLOW_FORMATS, decode_with_pillow
from worker.inference.images.pixels import PLAIN, DecodeHints, Pixels
from worker.inference.out_of_memory import is_out_of_memory

_ALWAYS = frozenset(READERS)
_SVG_START_BYTES = 1024  # in which the element of an SVG begins, behind comments and the like


def decode(upload: bytes | memoryview, limits: ImageLimits, hints: DecodeHints = PLAIN) -> Pixels:
    """The first frame, upright: uint8, height × width (gray) or height × width × 3 (RGB).

    Raises:
        DecodeError: with the code for the item.
        SlowImage: it would take longer than the limits allow.
        MemoryError: there is not enough memory to decode the image.
    """
    if not upload:
        raise DecodeError(ItemCode.EMPTY_UPLOAD)
    media_type = sniff(upload)
    if media_type is None:
        raise _not_an_image(bytes(upload[:_SVG_START_BYTES]))
    if media_type not in _ALWAYS and media_type not in limits.formats:
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT, FOUND_FORMATS.get(media_type))
    try:
        return _decode(upload, media_type, limits, hints)
    except (DecodeError, SlowImage):
        raise
    except Image.DecompressionBombError:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError …
        if is_out_of_memory(error):
            raise MemoryError from error
        raise DecodeError(ItemCode.CORRUPT_IMAGE) from error


def _decode(upload: bytes | memoryview, media_type: str, limits: ImageLimits, hints: DecodeHints) -> Pixels:
    read = READERS.get(media_type)
    if read is None:
        return decode_with_pillow(upload, media_type, limits, hints)
    picture = read(upload)
    check_size(picture.width, picture.height, limits, pixel_bytes=picture.pixel_bytes)
    if picture.frames > limits.frames_max:
        raise DecodeError(ItemCode.TOO_MANY_FRAMES)
    if picture.scans > limits.scans_max:
        raise DecodeError(ItemCode.TOO_MANY_SCANS)
    pixels = picture.width * picture.height
    seconds = decode_seconds(media_type, pixels, pixel_bytes=picture.pixel_bytes, scans=picture.scans)
    if seconds > limits.seconds_max:
        raise SlowImage
    if media_type in PILLOW_FORMATS and (picture.frames > 1 or media_type == "image/gif"):
        return decode_with_pillow(picture.data, media_type, limits, hints, picture.orientation)
    decoded = decode_with_opencv(picture, media_type, hints)
    if decoded is None:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    return decoded


def _not_an_image(start: bytes) -> DecodeError:
    is_xml = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg"))
    if is_xml and b"<svg" in start:
        return DecodeError(ItemCode.UNSUPPORTED_FORMAT, FoundFormat.SVG)
    return DecodeError(ItemCode.NOT_AN_IMAGE)
