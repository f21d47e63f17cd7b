"""From upload bytes to a decoded image: what it is and how large is told from its header, before any pixel."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple, Self

import numpy as np
from PIL import Image, ImageChops, ImageOps

from jobs.item_codes import ItemCode
from jobs.media_types import sniff
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size
from worker.inference.out_of_memory import is_out_of_memory
from worker.inference.settings import InferenceSettings

_PILLOW_FORMATS = {
    "image/png": ("PNG",),
    "image/jpeg": ("JPEG",),
    "image/gif": ("GIF",),
    "image/bmp": ("BMP",),
    "image/webp": ("WEBP",),
}
SIDE_PIXELS_MAX = 65_535  # the largest that a JPEG header can state
SCANS_MAX = 100  # of one JPEG; each costs a pass over all its pixels
_START_OF_SCAN = (0xFF, 0xDA)  # within a scan, a byte 0xff is followed by other bytes alone


class DecodeError(Exception):
    def __init__(self, code: ItemCode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageLimits:
    pixels_max: int
    side_pixels_max: int
    frames_max: int
    scans_max: int

    @classmethod
    def of(cls, settings: InferenceSettings) -> Self:
        return cls(settings.item_pixels_max, SIDE_PIXELS_MAX, settings.item_frames_max, SCANS_MAX)


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raises BadImage where width and height are too large."""
    width, height = size
    if width * height > limits.pixels_max or max(size) > limits.side_pixels_max:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS)


class DecodeHints(NamedTuple):
    """What is needed of a picture."""

    width: int
    height: int
    """Pixels, at least: a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size (decision 21). 0: all that it has."""
    colours: bool
    """False: gray will do, and is what comes where a JPEG's size was reduced."""
    as_shown: bool
    """Upright, as its EXIF data says, and on white where it is transparent; else as it is stored."""


def decode(upload: bytes | memoryview, limits: ImageLimits, needed: DecodeHints | None = None) -> Image.Image:
    """The first frame, decoded, 8 bits a channel. `needed` is None where every pixel is, in its colours, as stored.

    Raises:
        BadImage: with the code for the item.
        MemoryError: there is not enough to decode it.
    """
    if not upload:
        raise DecodeError(ItemCode.EMPTY_UPLOAD)
    size = plain_gray_size(upload)
    if size is not None:
        check_size(size, limits)
        image = Image.new("L", size)
        if draw_plain_gray(upload, image, (0, 0, *size)):
            return image
    media_type = sniff(upload)
    if media_type is None:
        raise DecodeError(ItemCode.NOT_AN_IMAGE)
    if media_type not in _PILLOW_FORMATS:
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what damage looks like: every upload could fill the log
            return _load(upload, media_type, limits, needed)
    except DecodeError:
        raise
    except Image.DecompressionBombError:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError …
        if is_out_of_memory(error):
            raise MemoryError from error
        raise DecodeError(ItemCode.CORRUPT_IMAGE) from error


def _load(upload: bytes | memoryview, media_type: str, limits: ImageLimits, needed: DecodeHints | None) -> Image.Image:
    # Pillow's own check, at twice that: it fills memory for a GIF's first frame before the size can be seen here.
    Image.MAX_IMAGE_PIXELS = limits.pixels_max
    image: Image.Image = Image.open(BytesIO(upload), formats=_PILLOW_FORMATS[media_type])
    check_size(image.size, limits)
    if getattr(image, "is_animated", False) and getattr(image, "n_frames", 1) > limits.frames_max:
        raise DecodeError(ItemCode.TOO_MANY_FRAMES)
    if media_type == "image/jpeg":
        if _scans(upload) > limits.scans_max:
            raise DecodeError(ItemCode.TOO_MANY_SCANS)
        if needed is not None and needed.width:
            _reduce(image, needed)
    image.load()
    if needed is not None and needed.as_shown:
        image = _on_white(ImageOps.exif_transpose(image))
    image.info.pop("transparency", None)  # without a palette or with an alpha for each colour, convert() trips over it
    return _eight_bits(image)


def _scans(upload: bytes | memoryview) -> int:
    """How many scans a JPEG has at most. In numpy: `bytes.count` stops at each 0xff, of which pixels are full."""
    data = np.frombuffer(upload, np.uint8)
    first, second = _START_OF_SCAN
    return int(np.count_nonzero((data[:-1] == first) & (data[1:] == second)))


def _reduce(image: Image.Image, needed: DecodeHints) -> None:
    """Have a JPEG that is at least twice as large as needed decoded smaller."""
    if min(image.width // needed.width, image.height // needed.height) >= 2:
        # Gray is the JPEG's own brightness then. Where nothing is reduced, the colours are decoded and converted
        # as the book has it.
        image.draft(None if needed.colours else "L", (needed.width, needed.height))


def _on_white(image: Image.Image) -> Image.Image:
    """Without transparency, as viewers show it."""
    if not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # one level is transparent; convert("RGBA") would clip all of them first
        transparent = np.asarray(image) == image.info["transparency"]
        image = _eight_bits(image)
        image.paste("white", mask=Image.fromarray(transparent))
        return image
    image = image.convert("RGBA")
    image.paste("white", mask=ImageChops.invert(image.getchannel("A")))  # in place: a large one takes much memory
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own convert("L") would clip everything above 255 to white
        return image.point(lambda value: value / 257).convert("L")
    return image
