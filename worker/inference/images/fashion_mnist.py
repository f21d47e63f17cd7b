"""A picture of one object, as the makers of Fashion-MNIST prepared theirs (Xiao, Rasul, Vollgraf 2017, section 2.1).

They took product shots on white, trimmed what has the background's colour, brought the longest side to 28 pixels,
centred it, and negated it. Here the background may be dark, too, and is then not negated; or coloured, or noisy, and is
then taken away. What is prepared already, such as an image of the data set itself, comes out as it came in.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input

Pixels = NDArray[np.int16]
Mask = NDArray[np.bool_]

LOOKED_AT_PIXELS = 112  # of the longest side, about: more is reduced before it is looked at
FINE = 4  # times the input's size: what is trimmed is reduced to that before its background is taken away
DIFFERENT_MIN = 6  # levels, of 255, by which an object differs from its background
NOISES = 4  # how many times the background's own noise
NEIGHBOURS_MIN = 4  # of the nine pixels around one in a noisy picture, itself included: what is alone is noise
INNER_MIN = 6  # of those nine, where there are pixels enough: along its edge an object is mixed with its background
FINE_MIN = 3  # times the input's size are pixels enough
WHOLE = 0.9  # an object that takes so much of the longest side fills the picture, which is then not trimmed
PLAIN_LEVELS = 12  # a background that is so near to black or white needs not be taken away
_LIGHT = 127.5
_LUMINANCE = np.array([0.299, 0.587, 0.114])


class _Background(NamedTuple):
    colour: NDArray[np.float64]
    level: float
    """Its luminance."""
    different: float
    """By how many levels a pixel of something else differs from it, in one of its channels at least."""

    @property
    def noisy(self) -> bool:
        return self.different > DIFFERENT_MIN

    @property
    def plain(self) -> bool:
        return not self.noisy and not PLAIN_LEVELS < self.level < 255 - PLAIN_LEVELS

    def is_object(self, pixels: Pixels) -> Mask:
        mask: Mask = np.abs(pixels - self.colour).max(axis=2) > self.different
        return mask & (_neighbours(mask) >= NEIGHBOURS_MIN) if self.noisy else mask


def product_shot(image: Image.Image, wanted: Input) -> Image.Image:
    """The object in a picture of 8 bits a channel: light on black, centred in the input's size; mode L."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    reduced_by = max(1, max(image.size) // LOOKED_AT_PIXELS)
    pixels = _pixels(image if reduced_by == 1 else image.reduce(reduced_by))
    background = _background(pixels)
    trimmed = _trimmed(
        image, _box(background.is_object(pixels), reduced_by), (FINE * wanted.width, FINE * wanted.height)
    )
    gray = np.asarray(trimmed.convert("L"))
    light_object = 255 - gray if background.level > _LIGHT else gray
    if not background.plain:
        mask = background.is_object(_pixels(trimmed))
        if background.noisy:
            mask = _filled(mask)
        elif max(trimmed.size) >= FINE_MIN * max(wanted.width, wanted.height):
            mask &= _neighbours(mask) >= INNER_MIN
        light_object = light_object * mask
    return _centred(Image.fromarray(light_object), wanted)


def _pixels(image: Image.Image) -> Pixels:
    """Height × width × 1 or 3."""
    return np.asarray(image, dtype=np.int16).reshape(image.height, image.width, -1)


def _background(pixels: Pixels) -> _Background:
    """Most of what is along the edges. An object may reach some of them."""
    ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    colour = np.median(ring, axis=0)
    noise = float(np.median(np.abs(ring - colour).max(axis=1)))
    level = float(colour @ _LUMINANCE if len(colour) > 1 else colour[0])
    return _Background(colour, level, max(DIFFERENT_MIN, NOISES * noise))


def _box(mask: Mask, scale: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the object, times `scale`; None where there is none, or it fills the picture."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, bottom, left, right = (int(it) for it in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    if max(bottom - top, right - left) >= WHOLE * max(mask.shape):
        return None
    return left * scale, top * scale, right * scale, bottom * scale


def _trimmed(image: Image.Image, box: tuple[int, int, int, int] | None, most: tuple[int, int]) -> Image.Image:
    """That part of an image, reduced to `most` pixels where it has more."""
    if box is not None:
        left, top, right, bottom = box
        image = image.crop((left, top, min(right, image.width), min(bottom, image.height)))
    size = _fitted(image.size, most)
    return image.resize(size, Image.Resampling.BOX) if size[0] < image.width else image


def _centred(image: Image.Image, wanted: Input) -> Image.Image:
    space = wanted.width, wanted.height
    size = _fitted(image.size, space)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if size == space:
        return image
    centred = Image.new("L", space)
    centred.paste(image, ((space[0] - size[0]) // 2, (space[1] - size[1]) // 2))
    return centred


def _fitted(size: tuple[int, int], space: tuple[int, int]) -> tuple[int, int]:
    """A size as large as fits the space, of the same shape."""
    scale = min(space[0] / size[0], space[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _filled(mask: Mask) -> Mask:
    """With what lies between two pixels of the object both in its row and in its column."""
    between = np.maximum.accumulate
    rows = between(mask, axis=1) & between(mask[:, ::-1], axis=1)[:, ::-1]
    columns = between(mask, axis=0) & between(mask[::-1], axis=0)[::-1]
    filled: Mask = mask | (rows & columns)
    return filled


def _neighbours(mask: Mask) -> NDArray[np.int8]:
    """How many of the nine pixels around each one are set."""
    height, width = mask.shape
    padded = np.pad(mask, 1).astype(np.int8)
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    counts: NDArray[np.int8] = np.add.reduce(shifted)
    return counts
