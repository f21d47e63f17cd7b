"""What an image may cost to decode, and the error of one that cannot be decoded."""

import math
from dataclasses import dataclass
from typing import Self

from jobs.item_codes import FOUND_FORMATS, FoundFormat, ItemCode
from worker.inference.settings import InferenceSettings

SIDE_PIXELS_MAX = 65_535  # the largest that a JPEG header can state
SCANS_MAX = 100  # of one JPEG; each costs a pass over all its pixels
PARTS_MAX = 10_000  # segments, chunks or blocks of one file, beside those of 128 bytes and more: each costs a step
PART_BYTES = 128
DECODE_PIXEL_BYTES = 12  # of memory, for each pixel while it is decoded: at most, measured for all formats
PIXEL_BYTES_MAX = 4  # as of RGBA; ITEM_PIXELS_MAX pixels may take so many bytes each once they are decoded


class DecodeError(Exception):
    """An upload cannot be decoded, or exceeds a limit. `code` is the code for the item, `found` the format it is in."""

    def __init__(self, code: ItemCode, found: FoundFormat | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.found = found


class SlowImage(Exception):
    """Decoding an image is estimated to take `ImageLimits.seconds_max` or longer: not now, but it is no fault of it."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    pixels_max: int
    side_pixels_max: int
    frames_max: int
    scans_max: int
    formats: frozenset[str] = frozenset()
    """Media types that are decoded beside those that always are."""
    seconds_max: float = math.inf
    """An image whose decoding is estimated to take longer is a `SlowImage`."""

    @property
    def taken(self) -> frozenset[FoundFormat]:
        """The formats of `formats`, by the names in errors."""
        return frozenset(FOUND_FORMATS[media_type] for media_type in self.formats)

    @classmethod
    def of(cls, settings: InferenceSettings) -> Self:
        return cls(
            settings.item_pixels_max,
            SIDE_PIXELS_MAX,
            settings.item_frames_max,
            SCANS_MAX,
            frozenset(f"image/{name}" for name in settings.image_formats),
            settings.slow_image_seconds,
        )


def parts_max(upload: bytes | memoryview) -> int:
    """Of how many segments, chunks or blocks a file of this length may consist.

    No setting: the largest number that a camera or an editor is known to write is a tenth of it.
    """
    return PARTS_MAX + len(upload) // PART_BYTES


def check_size(width: int, height: int, limits: ImageLimits, *, pixel_bytes: int = PIXEL_BYTES_MAX) -> None:
    """Raises DecodeError if an image of this width, height and bytes a pixel, as decoded, is too large."""
    pixels = width * height * max(1, pixel_bytes / PIXEL_BYTES_MAX)
    if pixels > limits.pixels_max or max(width, height) > limits.side_pixels_max:
        raise DecodeError(ItemCode.TOO_MANY_PIXELS)
