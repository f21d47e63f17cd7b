"""From upload bytes to a decoded image: what it is and how large is told from its header, before any pixel."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Self

from PIL import Image

from jobs.errors import ItemCode
from jobs.media import sniff
from worker.oom import is_out_of_memory
from worker.settings import WorkerSettings

_PILLOW_FORMATS = {
    "image/png": ("PNG",),
    "image/jpeg": ("JPEG",),
    "image/gif": ("GIF",),
    "image/bmp": ("BMP",),
    "image/webp": ("WEBP",),
}
_START_OF_SCAN = b"\xff\xda"  # within a scan, a byte 0xff is followed by other bytes alone


class BadImage(Exception):
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
    def of(cls, settings: WorkerSettings) -> Self:
        return cls(
            settings.item_pixels_max, settings.item_side_pixels_max, settings.item_frames_max, settings.item_scans_max
        )


def decode(upload: bytes | memoryview, limits: ImageLimits) -> Image.Image:
    """The first frame, decoded, 8 bits a channel, in the orientation in which it is stored.

    Raises:
        BadImage: with the code for the item.
        MemoryError: there is not enough to decode it.
    """
    if not upload:
        raise BadImage(ItemCode.EMPTY_UPLOAD)
    media_type = sniff(upload)
    if media_type is None:
        raise BadImage(ItemCode.NOT_AN_IMAGE)
    if media_type not in _PILLOW_FORMATS:
        raise BadImage(ItemCode.UNSUPPORTED_FORMAT)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what damage looks like: every upload could fill the log
            return _load(upload, media_type, limits)
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage(ItemCode.TOO_MANY_PIXELS) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError …
        if is_out_of_memory(error):
            raise MemoryError from error
        raise BadImage(ItemCode.CORRUPT_IMAGE) from error


def _load(upload: bytes | memoryview, media_type: str, limits: ImageLimits) -> Image.Image:
    # Pillow's own check, at twice that: it fills memory for a GIF's first frame before the size can be seen here.
    Image.MAX_IMAGE_PIXELS = limits.pixels_max
    image: Image.Image = Image.open(BytesIO(upload), formats=_PILLOW_FORMATS[media_type])
    if image.width * image.height > limits.pixels_max or max(image.size) > limits.side_pixels_max:
        raise BadImage(ItemCode.TOO_MANY_PIXELS)
    if getattr(image, "is_animated", False) and getattr(image, "n_frames", 1) > limits.frames_max:
        raise BadImage(ItemCode.TOO_MANY_FRAMES)
    if media_type == "image/jpeg" and bytes(upload).count(_START_OF_SCAN) > limits.scans_max:
        raise BadImage(ItemCode.TOO_MANY_SCANS)
    image.load()
    image.info.pop("transparency", None)  # without a palette or with an alpha for each colour, convert() trips over it
    return _eight_bits(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own convert("L") would clip everything above 255 to white
        return image.point(lambda value: value / 257).convert("L")
    return image
