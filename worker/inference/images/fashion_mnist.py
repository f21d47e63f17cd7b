"""Prepares an image of one object as the authors of Fashion-MNIST did (Xiao, Rasul, Vollgraf 2017, section 2.1).

They took product photos on white, trimmed the background's colour, resized the longest side to 28 pixels, centred and
inverted the image. Here the background may also be dark, in which case the image is not inverted; or coloured or noisy,
in which case the background is replaced by black. An image of the data set itself is returned unchanged.
"""

from math import ceil, floor
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.model_manifest import Input
from worker.inference.images.pixels import Pixels, as_uint8

Mask = NDArray[Any]
"""Height × width, uint8: 255 where the object is, 0 elsewhere."""
Box = tuple[int, int, int, int]
"""Left, top, width, height."""

ANALYSIS_PIXELS = 112  # the object is located in a copy whose longest side has about this many pixels
CUTOUT_SCALE = 4  # the trimmed image is reduced to this many times the input size before its background is removed
CONTRAST_MIN = 10  # levels of 255 by which an object differs from its background
NOISE_FACTOR = 4  # in a noisy image, the object differs by this many times the background's own noise
NEIGHBOURS_MIN = 4  # of the 3 × 3 pixels around one of a noisy image, itself included: fewer are noise
LARGE_CUTOUT_SCALE = 3  # in a cutout of this many times the input size, pixels at the object's edge are left out
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
        lowest = [max(0, ceil(level - self.contrast_min)) for level in self.colour]
        highest = [min(255, floor(level + self.contrast_min)) for level in self.colour]
        mask = cv2.bitwise_not(cv2.inRange(pixels, np.array(lowest), np.array(highest)))
        return _with_neighbours(mask, NEIGHBOURS_MIN) if self.noisy else mask


def isolate_object(pixels: Pixels, input_spec: Input) -> Pixels:
    """The object of an image, gray or RGB: light on black, centred in the input size; height × width."""
    height, width = pixels.shape[:2]
    factor = max(1, max(height, width) // ANALYSIS_PIXELS)
    small = pixels if factor == 1 else _reduced(pixels, (ceil(width / factor), ceil(height / factor)))
    background = _background(small)
    box = _bounding_box(background.object_mask(small), factor)
    cutout = _trim(pixels, box, (CUTOUT_SCALE * input_spec.width, CUTOUT_SCALE * input_spec.height))
    gray = cutout if cutout.ndim == 2 else as_uint8(cv2.cvtColor(cutout, cv2.COLOR_RGB2GRAY))
    light_object = as_uint8(cv2.bitwise_not(gray)) if background.level > _MEDIUM_LEVEL else gray
    if not background.plain:
        mask = background.object_mask(cutout)
        if background.noisy:
            mask = _filled(mask)
        elif max(gray.shape) >= LARGE_CUTOUT_SCALE * max(input_spec.width, input_spec.height):
            mask = _without_edge(mask)  # these pixels are mixed with the background
        light_object = as_uint8(cv2.bitwise_and(light_object, mask))
    return _centred(light_object, (input_spec.width, input_spec.height))


def _background(pixels: Pixels) -> _Background:
    """The median colour along the border. The object may touch some of it."""
    lines = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    border = np.concatenate(lines).reshape(sum(map(len, lines)), -1)
    colour = np.median(border, axis=0)
    noise = float(np.median(np.abs(border - colour).max(axis=1)))
    level = float(colour @ _LUMINANCE if len(colour) > 1 else colour[0])
    return _Background(colour, level, max(CONTRAST_MIN, NOISE_FACTOR * noise))


def _bounding_box(mask: Mask, scale: int) -> Box | None:
    """The box around the object, times `scale`. None if there is no object, or it fills the image."""
    left, top, width, height = (int(side) for side in cv2.boundingRect(mask))
    if not width or max(width, height) >= UNTRIMMED_SHARE * max(mask.shape):
        return None
    return left * scale, top * scale, width * scale, height * scale


def _trim(pixels: Pixels, box: Box | None, size_max: tuple[int, int]) -> Pixels:
    """Crop an image to a box, and reduce it to at most `size_max`."""
    if box is not None:
        left, top, width, height = box
        pixels = pixels[top : top + height, left : left + width]
    size = _fit(pixels, size_max)
    return _reduced(pixels, size) if size[0] < pixels.shape[1] else pixels


def _centred(pixels: Pixels, canvas_size: tuple[int, int]) -> Pixels:
    """Resize an image until it fits the canvas, and centre it there on black."""
    width, height = size = _fit(pixels, canvas_size)
    if size != pixels.shape[::-1]:
        smaller = width < pixels.shape[1]
        pixels = as_uint8(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))
    left, top = (canvas_size[0] - width) // 2, (canvas_size[1] - height) // 2
    right, bottom = canvas_size[0] - width - left, canvas_size[1] - height - top
    return as_uint8(cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0))


def _reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Each pixel is the mean of those that it stands for."""
    return as_uint8(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _fit(pixels: Pixels, canvas_size: tuple[int, int]) -> tuple[int, int]:
    """The largest size (width, height) of the same aspect ratio that fits the canvas."""
    height, width = pixels.shape[:2]
    scale = min(canvas_size[0] / width, canvas_size[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _filled(mask: Mask) -> Mask:
    """The mask without holes."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mask, contours, -1, 255, cv2.FILLED)


def _without_edge(mask: Mask) -> Mask:
    return cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _with_neighbours(mask: Mask, neighbours_min: int) -> Mask:
    """The pixels of the mask with so many set among the 3 × 3 around them, themselves included."""
    counts = cv2.boxFilter(mask & 1, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return cv2.bitwise_and(mask, cv2.inRange(counts, neighbours_min, 9))
