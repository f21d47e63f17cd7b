"""From a decoded image to the input of a network, by the mode that the model's manifest names."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input, Preprocessing
from worker.inference.images.decode import DecodeHints
from worker.inference.images.fashion_mnist import isolate_object

RESIZE_OVERSIZE = 3  # Pillow's documentation calls a prior reduction to this many times the target indistinguishable
TRIM_OVERSIZE = 8  # with trimming, the object may be only a part of the image
CENTRE_CROP_CONTEXT = 8  # only this many times the visible area is resized, so that a very long image fits in memory


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Preprocessing in two steps: with Pillow for each image, then with numpy for the whole batch."""

    to_input_size: Callable[[Image.Image, Input], Image.Image]
    """From a decoded image to one of the input's size: mode L or RGB, for 1 or 3 channels."""
    to_floats: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """From uint8 to float32, N × height × width × channels."""
    keeps_gray: bool = False
    """Whether `to_input_size` returns a gray image of the input's size unchanged."""
    oversize: int = 0
    """A JPEG may be decoded at a reduced scale that is at least this many times the needed size; 0: never."""
    shorter_side: int = 0
    """Pixels to which `to_input_size` resizes the shorter side before it crops; 0: it does not crop."""
    uses_colours: bool = False
    """Whether `to_input_size` uses colours even if the network's input is gray."""
    as_displayed: bool = True
    """Rotate as the EXIF data says, and put transparent images on white; else use the pixels as stored."""

    def decode_hints(self, input_spec: Input) -> DecodeHints:
        return DecodeHints(
            self.oversize * max(input_spec.width, self.shorter_side),
            self.oversize * max(input_spec.height, self.shorter_side),
            colours=self.uses_colours or input_spec.channels > 1,
            as_displayed=self.as_displayed,
        )


def _book_to_input_size(image: Image.Image, input_spec: Input) -> Image.Image:
    gray = image if image.mode == "L" else image.convert("L")
    size = input_spec.width, input_spec.height
    return gray if gray.size == size else gray.resize(size)


def _inverted_to_floats(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(255 - pixels, 255, dtype=np.float32)
    return scaled


def _to_floats(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(pixels, 255, dtype=np.float32)
    return scaled


BOOK = Preprocessor(
    _book_to_input_size, _inverted_to_floats, keeps_gray=True, oversize=RESIZE_OVERSIZE, as_displayed=False
)
"""The book's own lines: grayscale, resize, 255 − x, / 255; in [0, 1].

For a dark object on a white background. Images of Fashion-MNIST itself are light on black.
"""

FMNIST = Preprocessor(isolate_object, _to_floats, oversize=TRIM_OVERSIZE, uses_colours=True)
"""As the authors of Fashion-MNIST did, see `worker/inference/images/fashion_mnist.py`; in [0, 1]."""


def preprocessor_for(preprocessing: Preprocessing, input_spec: Input) -> Preprocessor:
    """The preprocessor that a manifest describes."""
    shorter_side = 0
    match preprocessing.mode:
        case "book":
            return BOOK
        case "fmnist":
            return FMNIST
        case "resize":
            to_input_size = partial(_resize, resampling=_RESAMPLING[preprocessing.interpolation])
        case "center_crop":
            shorter_side = preprocessing.shorter_side or min(input_spec.width, input_spec.height)
            resampling = _RESAMPLING[preprocessing.interpolation]
            to_input_size = partial(_centre_crop, shorter_side=shorter_side, resampling=resampling)
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean or [0], preprocessing.std or [1]))

    def to_floats(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        normalized: NDArray[np.float32] = (_to_floats(pixels) - mean) / std
        return normalized

    return Preprocessor(to_input_size, to_floats, oversize=RESIZE_OVERSIZE, shorter_side=shorter_side)


_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _crop_centre(image: Image.Image, size_max: list[int]) -> Image.Image:
    """The centre of an image, at most `size_max`."""
    width, height = (min(side, limit) for side, limit in zip(image.size, size_max, strict=True))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _convert(image: Image.Image, input_spec: Input) -> Image.Image:
    mode = "L" if input_spec.channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _resize(image: Image.Image, input_spec: Input, *, resampling: Image.Resampling) -> Image.Image:
    """The whole image, stretched to the input size."""
    return _convert(image, input_spec).resize((input_spec.width, input_spec.height), resampling)


def _centre_crop(
    image: Image.Image, input_spec: Input, *, shorter_side: int, resampling: Image.Resampling
) -> Image.Image:
    """Resize the shorter side, then crop the centre; padded with black if the image is smaller than the input."""
    scale = shorter_side / min(image.size)
    # Crop before resizing, too: to resize the whole of an image of 1 × 65,535 pixels would fill memory.
    visible = (max(1, ceil(side / scale)) for side in (input_spec.width, input_spec.height))
    image = _crop_centre(image, [CENTRE_CROP_CONTEXT * side for side in visible])
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resized = _convert(image, input_spec).resize(size, resampling)
    left, top = (size[0] - input_spec.width) // 2, (size[1] - input_spec.height) // 2
    return resized.crop((left, top, left + input_spec.width, top + input_spec.height))
