"""Pixels between decoder and network, and what all decoders leave to be done."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Height × width (gray) or height × width × 3 (RGB)."""
Decoded = NDArray[Any]  # OpenCV's functions have one type for all arrays


class DecodeHints(NamedTuple):
    """What a network needs of an image, so that the decoder can skip the rest."""

    width_min: int = 0
    height_min: int = 0
    """Pixels: a JPEG of twice this size or more is decoded at 1/2, 1/4 or 1/8 scale (decision 21). 0: at full scale."""
    colours: bool = True
    """False: grayscale is enough, and a JPEG at a reduced scale is decoded to it."""
    as_the_book: bool = False
    """Decode as `cv2.imread(path, 0)` does: gray, transparency ignored. Else transparent images are put on white."""


PLAIN = DecodeHints()
"""At full scale, in colour."""


def on_white(rgb: Decoded, alpha: Decoded) -> Decoded:
    """Put transparent pixels on white, as image viewers do. In place."""
    if alpha.min() < 255:
        cv2.bitwise_not(rgb, dst=rgb)
        cv2.multiply(rgb, cv2.merge([alpha, alpha, alpha]), dst=rgb, scale=1 / 255)
        cv2.bitwise_not(rgb, dst=rgb)
    return rgb


def upright(pixels: Decoded, orientation: int) -> Pixels:
    """Turn a picture as its EXIF orientation says."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            turned = pixels
    return as_uint8(turned)


def as_uint8(pixels: Decoded) -> Pixels:
    assert pixels.dtype == np.uint8
    return pixels
