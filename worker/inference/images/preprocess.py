"""From a decoded image to what a network takes. A manifest names its mode."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input, Preprocessing
from worker.inference.images.decode import DecodeHints
from worker.inference.images.fashion_mnist import product_shot

REDUCED_MIN = 3  # times the input's size: from there on, Pillow's documentation calls a reduction indistinguishable
SEEN_TIMES = 8  # what is further from the center than that many times what is seen goes before the resize
TRIMMED_MIN = 8  # where the object may be a part of the picture


@dataclass(frozen=True, slots=True)
class Mode:
    """What is done to images, in two steps: in Pillow to each as it comes, in numpy to all of a batch at once."""

    picture: Callable[[Image.Image, Input], Image.Image]
    """The part of an image that the network sees: of the input's size, mode L or RGB as its channels are 1 or 3."""
    values: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """uint8 to float32, N × height × width × channels."""
    keeps_gray: bool = False
    """Whether `picture` leaves a gray image of the input's size as it is."""
    reduced_min: int = 0
    """A large JPEG may be decoded at a smaller scale, still so many times as large as needed or more; 0: it may not."""
    shorter_side: int = 0
    """What `picture` resizes to before it crops, in pixels; 0: to no more than the input's size."""
    sees_colours: bool = False
    """Whether `picture` looks at colours even where the network does not."""
    as_shown: bool = True
    """Upright as its EXIF data says, and on white where it is transparent; else as it is stored."""

    def needed(self, wanted: Input) -> DecodeHints:
        """What the decoder has to deliver."""
        return DecodeHints(
            self.reduced_min * max(wanted.width, self.shorter_side),
            self.reduced_min * max(wanted.height, self.shorter_side),
            colours=self.sees_colours or wanted.channels > 1,
            as_shown=self.as_shown,
        )


def _book_picture(image: Image.Image, wanted: Input) -> Image.Image:
    gray = image if image.mode == "L" else image.convert("L")
    return gray if gray.size == (wanted.width, wanted.height) else gray.resize((wanted.width, wanted.height))


def _book_values(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(255 - pixels, 255, dtype=np.float32)
    return scaled


def _shares(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(pixels, 255, dtype=np.float32)
    return scaled


BOOK = Mode(_book_picture, _book_values, keeps_gray=True, reduced_min=REDUCED_MIN, as_shown=False)
"""The book's own lines: grayscale, resize, 255 − x, / 255, so in [0, 1].

Right for a dark object on a white background; a Fashion-MNIST image itself is the reverse.
"""

FMNIST = Mode(product_shot, _shares, reduced_min=TRIMMED_MIN, sees_colours=True)
"""As the makers of Fashion-MNIST did it: see `worker/inference/images/fashion_mnist.py`. In [0, 1]."""


def preprocessor_for(preprocessing: Preprocessing, wanted: Input) -> Mode:
    """What a manifest asks for."""
    shorter = 0
    match preprocessing.mode:
        case "book":
            return BOOK
        case "fmnist":
            return FMNIST
        case "resize":
            picture = partial(_resized, filter_=_FILTERS[preprocessing.interpolation])
        case "center_crop":
            shorter = preprocessing.shorter_side or min(wanted.width, wanted.height)
            picture = partial(_center, shorter=shorter, filter_=_FILTERS[preprocessing.interpolation])
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean or [0], preprocessing.std or [1]))

    def values(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        normalized: NDArray[np.float32] = (_shares(pixels) - mean) / std
        return normalized

    return Mode(picture, values, reduced_min=REDUCED_MIN, shorter_side=shorter)


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _without_far_ends(image: Image.Image, most: list[int]) -> Image.Image:
    """The middle of an image that is much longer than what is seen of it: resized, 1 × 65,535 would fill memory."""
    width, height = (min(side, limit) for side, limit in zip(image.size, most, strict=True))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _coloured(image: Image.Image, wanted: Input) -> Image.Image:
    mode = "L" if wanted.channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Image.Image, wanted: Input, *, filter_: Image.Resampling) -> Image.Image:
    """All of it, its sides stretched to those of the input."""
    return _coloured(image, wanted).resize((wanted.width, wanted.height), filter_)


def _center(image: Image.Image, wanted: Input, *, shorter: int, filter_: Image.Resampling) -> Image.Image:
    """Resized until its shorter side has so many pixels, and of that the center; black where that is too small."""
    scale = shorter / min(image.size)
    image = _without_far_ends(
        image, [SEEN_TIMES * max(1, ceil(side / scale)) for side in (wanted.width, wanted.height)]
    )
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resized = _coloured(image, wanted).resize(size, filter_)
    left, top = (size[0] - wanted.width) // 2, (size[1] - wanted.height) // 2
    return resized.crop((left, top, left + wanted.width, top + wanted.height))
