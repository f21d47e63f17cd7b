"""Prepares an image of one object as the authors of Fashion-MNIST did (Xiao, Rasul, Vollgraf 2017, section 2.1).

They took product photos on white, trimmed the background's colour, resized the longest side to 28 pixels, centred and
inverted the image. Here the background may also be dark, in which case the image is not inverted; or coloured or noisy,
in which case the background is replaced by black. An image of the data set itself is returned unchanged.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input

Pixels = NDArray[np.int16]
Mask = NDArray[np.bool_]

ANALYSIS_PIXELS = 112  # the object is located in a copy whose longest side has about this many pixels
CUTOUT_SCALE = 4  # the trimmed image is reduced to this many times the input size before its background is removed
CONTRAST_MIN = 6  # levels of 255 by which an object differs from its background
NOISE_FACTOR = 4  # in a noisy image, the object differs by this many times the background's own noise
NEIGHBOURS_MIN = 4  # of the 3 × 3 pixels around one of a noisy image, itself included: fewer are noise
INTERIOR_NEIGHBOURS_MIN = 6  # of those nine, in a large cutout: pixels at the edge are mixed with the background
LARGE_CUTOUT_SCALE = 3  # a cutout of this many times the input size is large
UNTRIMMED_SHARE = 0.9  # an object that takes this share of the longest side fills the image, which is not trimmed
PLAIN_LEVELS = 12  # a background this close to black or white is not removed
_MEDIUM_LEVEL = 127.5
_LUMINANCE = np.array([0.299, 0.587, 0.114])


class _Background(NamedTuple):
    colour: NDArray[np.float64]
    level: float
    """The luminance of the colour."""
    contrast_min: float
    """Levels by which a pixel of the object differs from the colour in at least one channel."""

    @property
    def noisy(self) -> bool:
        return self.contrast_min > CONTRAST_MIN

    @property
    def plain(self) -> bool:
        return not self.noisy and not PLAIN_LEVELS < self.level < 255 - PLAIN_LEVELS

    def object_mask(self, pixels: Pixels) -> Mask:
        mask: Mask = np.abs(pixels - self.colour).max(axis=2) > self.contrast_min
        return mask & (_count_neighbours(mask) >= NEIGHBOURS_MIN) if self.noisy else mask


def isolate_object(image: Image.Image, input_spec: Input) -> Image.Image:
    """The object of an image with 8 bits per channel: light on black, centred in the input size; mode L."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    factor = max(1, max(image.size) // ANALYSIS_PIXELS)
    pixels = _pixels(image if factor == 1 else image.reduce(factor))
    background = _background(pixels)
    box = _bounding_box(background.object_mask(pixels), factor)
    cutout = _trim(image, box, (CUTOUT_SCALE * input_spec.width, CUTOUT_SCALE * input_spec.height))
    gray = np.asarray(cutout.convert("L"))
    light_object = 255 - gray if background.level > _MEDIUM_LEVEL else gray
    if not background.plain:
        mask = background.object_mask(_pixels(cutout))
        if background.noisy:
            mask = _fill(mask)
        elif max(cutout.size) >= LARGE_CUTOUT_SCALE * max(input_spec.width, input_spec.height):
            mask &= _count_neighbours(mask) >= INTERIOR_NEIGHBOURS_MIN
        light_object = light_object * mask
    return _centre(Image.fromarray(light_object), (input_spec.width, input_spec.height))


def _pixels(image: Image.Image) -> Pixels:
    """Height × width × 1 or 3."""
    return np.asarray(image, dtype=np.int16).reshape(image.height, image.width, -1)


def _background(pixels: Pixels) -> _Background:
    """The median colour along the border. The object may touch some of it."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    colour = np.median(border, axis=0)
    noise = float(np.median(np.abs(border - colour).max(axis=1)))
    level = float(colour @ _LUMINANCE if len(colour) > 1 else colour[0])
    return _Background(colour, level, max(CONTRAST_MIN, NOISE_FACTOR * noise))


def _bounding_box(mask: Mask, scale: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the object, times `scale`. None if there is no object, or it fills the image."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    if max(bottom - top, right - left) >= UNTRIMMED_SHARE * max(mask.shape):
        return None
    return left * scale, top * scale, right * scale, bottom * scale


def _trim(image: Image.Image, box: tuple[int, int, int, int] | None, size_max: tuple[int, int]) -> Image.Image:
    """Crop an image to a box, and reduce it to at most `size_max`."""
    if box is not None:
        left, top, right, bottom = box
        image = image.crop((left, top, min(right, image.width), min(bottom, image.height)))
    size = _fit(image.size, size_max)
    return image.resize(size, Image.Resampling.BOX) if size[0] < image.width else image


def _centre(image: Image.Image, canvas_size: tuple[int, int]) -> Image.Image:
    """Resize an image until it fits the canvas, and centre it there on black."""
    size = _fit(image.size, canvas_size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if size == canvas_size:
        return image
    canvas = Image.new("L", canvas_size)
    canvas.paste(image, ((canvas_size[0] - size[0]) // 2, (canvas_size[1] - size[1]) // 2))
    return canvas


def _fit(size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same aspect ratio that fits the canvas."""
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fill(mask: Mask) -> Mask:
    """Add the pixels that lie between two pixels of the object both in their row and in their column."""
    accumulate = np.maximum.accumulate
    rows = accumulate(mask, axis=1) & accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    columns = accumulate(mask, axis=0) & accumulate(mask[::-1], axis=0)[::-1]
    filled: Mask = mask | (rows & columns)
    return filled


def _count_neighbours(mask: Mask) -> NDArray[np.int8]:
    """For each pixel, how many of the 3 × 3 pixels around it are set, itself included."""
    height, width = mask.shape
    padded = np.pad(mask, 1).astype(np.int8)
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    counts: NDArray[np.int8] = np.add.reduce(shifted)
    return counts
