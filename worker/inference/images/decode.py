"""From the bytes of an upload to a decoded image. Format and size are read from the header before any pixel."""

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
_START_OF_SCAN = (0xFF, 0xDA)  # cannot occur within a scan, where 0xff is followed by 0x00 or a restart marker


class DecodeError(Exception):
    """An upload cannot be decoded, or exceeds a limit. `code` is the code for the item."""

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
    """Raises DecodeError if an image of this width and height is too large."""
    width, height = size
    if width * height > limits.pixels_max or max(size) > limits.side_pixels_max:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS)


class DecodeHints(NamedTuple):
    """What a network needs of an image, so that the decoder can skip the rest."""

    width_min: int
    height_min: int
    """Pixels: a JPEG of twice this size or more is decoded at 1/2, 1/4 or 1/8 scale (decision 21). 0: at full scale."""
    colours: bool
    """False: grayscale is enough, and a JPEG at a reduced scale is decoded to it."""
    as_displayed: bool
    """Rotate as the EXIF data says, and put transparent images on white. False: keep the pixels as stored."""


def decode(upload: bytes | memoryview, limits: ImageLimits, hints: DecodeHints | None = None) -> Image.Image:
    """Decode the first frame, 8 bits per channel. Without hints: at full scale, in colour, as stored.

    Raises:
        DecodeError: with the code for the item.
        MemoryError: there is not enough memory to decode the image.
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
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of damaged images: uploads could fill the log
            return _decode_with_pillow(upload, media_type, limits, hints)
    except DecodeError:
        raise
    except Image.DecompressionBombError:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError …
        if is_out_of_memory(error):
            raise MemoryError from error
        raise DecodeError(ItemCode.CORRUPT_IMAGE) from error


def _decode_with_pillow(
    upload: bytes | memoryview, media_type: str, limits: ImageLimits, hints: DecodeHints | None
) -> Image.Image:
    # Pillow raises at twice this. `check_size` is too late for a GIF: Pillow allocates its first frame on opening it.
    Image.MAX_IMAGE_PIXELS = limits.pixels_max
    image: Image.Image = Image.open(BytesIO(upload), formats=_PILLOW_FORMATS[media_type])
    check_size(image.size, limits)
    if getattr(image, "is_animated", False) and getattr(image, "n_frames", 1) > limits.frames_max:
        raise DecodeError(ItemCode.TOO_MANY_FRAMES)
    if media_type == "image/jpeg":
        if _count_scans(upload) > limits.scans_max:
            raise DecodeError(ItemCode.TOO_MANY_SCANS)
        if hints is not None and hints.width_min:
            _request_reduced_scale(image, hints)
    image.load()
    if hints is not None and hints.as_displayed:
        image = _on_white(ImageOps.exif_transpose(image))
    # convert() fails on transparency without a palette, or with one alpha value per colour
    image.info.pop("transparency", None)
    return _eight_bits(image)


def _count_scans(upload: bytes | memoryview) -> int:
    """The largest number of scans that a JPEG can have. numpy, because `bytes.count` is slow with many 0xff bytes."""
    data = np.frombuffer(upload, np.uint8)
    first, second = _START_OF_SCAN
    return int(np.count_nonzero((data[:-1] == first) & (data[1:] == second)))


def _request_reduced_scale(image: Image.Image, hints: DecodeHints) -> None:
    """Have Pillow decode a JPEG at a reduced scale if it is at least twice as large as needed."""
    if min(image.width // hints.width_min, image.height // hints.height_min) >= 2:
        # Gray is then the JPEG's own luminance. At full scale, colours are decoded and converted as in the book.
        image.draft(None if hints.colours else "L", (hints.width_min, hints.height_min))


def _on_white(image: Image.Image) -> Image.Image:
    """Replace transparency by white, as image viewers do."""
    if not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # one level is transparent; convert("RGBA") would clip all levels first
        transparent = np.asarray(image) == image.info["transparency"]
        image = _eight_bits(image)
        image.paste("white", mask=Image.fromarray(transparent))
        return image
    image = image.convert("RGBA")
    image.paste("white", mask=ImageChops.invert(image.getchannel("A")))  # in place: a copy of 50 megapixels is 200 MB
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's convert("L") would clip all levels above 255 to white
        return image.point(lambda value: value / 257).convert("L")
    return image
