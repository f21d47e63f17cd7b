"""From a decoded image to the input of a network, by the mode that the model's manifest names."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input, Preprocessing
from worker.inference.images.fashion_mnist import isolate_object
from worker.inference.images.pixels import DecodeHints, Pixels, as_uint8

RESIZE_OVERSIZE = 3  # Pillow's documentation calls a prior reduction to this many times the target indistinguishable
TRIM_OVERSIZE = 8  # with trimming, the object may be only a part of the image
CENTRE_CROP_CONTEXT = 8  # only this many times the visible area is resized, so that a very long image fits in memory


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Preprocessing in two steps: for each image, then with numpy for the whole batch."""

    to_input_size: Callable[[Pixels, Input], Pixels]
    """From a decoded image, gray or RGB, to one of the input's size and channels."""
    to_floats: Callable[[Pixels], NDArray[np.float32]]
    """From uint8 to float32, N × height × width × channels."""
    keeps_gray: bool = False
    """Whether `to_input_size` returns a gray image of the input's size unchanged."""
    oversize: int = 0
    """A JPEG may be decoded at a reduced scale that is at least this many times the needed size; 0: never."""
    shorter_side: int = 0
    """Pixels to which `to_input_size` resizes the shorter side before it crops; 0: it does not crop."""
    uses_colours: bool = False
    """Whether `to_input_size` uses colours even if the network's input is gray."""
    as_the_book: bool = False
    """Decode as `cv2.imread(path, 0)` does."""

    def decode_hints(self, input_spec: Input) -> DecodeHints:
        return DecodeHints(
            self.oversize * max(input_spec.width, self.shorter_side),
            self.oversize * max(input_spec.height, self.shorter_side),
            colours=self.uses_colours or input_spec.channels > 1,
            as_the_book=self.as_the_book,
        )


def _book_to_input_size(gray: Pixels, input_spec: Input) -> Pixels:
    size = input_spec.width, input_spec.height
    return as_uint8(cv2.resize(gray, size)) if gray.shape[::-1] != size else gray


def _inverted_to_floats(pixels: Pixels) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(255 - pixels, 255, dtype=np.float32)
    return scaled


def _to_floats(pixels: Pixels) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(pixels, 255, dtype=np.float32)
    return scaled


BOOK = Preprocessor(_book_to_input_size, _inverted_to_floats, keeps_gray=True, as_the_book=True)
"""The book's own lines: `cv2.imread(path, 0)`, `cv2.resize(x, (28, 28))`, 255 − x, / 255; in [0, 1].

For a dark object on a white background. Images of Fashion-MNIST itself are light on black. JPEGs are decoded at full
scale: any other scale would give other numbers than the book's lines.
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

    def to_floats(pixels: Pixels) -> NDArray[np.float32]:
        normalized: NDArray[np.float32] = (_to_floats(pixels) - mean) / std
        return normalized

    return Preprocessor(to_input_size, to_floats, oversize=RESIZE_OVERSIZE, shorter_side=shorter_side)


# Pillow resizes here: it averages over the pixels that a smaller image leaves out, as torchvision does in training.
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _crop_centre(pixels: Pixels, size_max: list[int]) -> Pixels:
    """The centre of an image, at most `size_max` (width, height)."""
    height, width = pixels.shape[:2]
    new_width, new_height = min(width, size_max[0]), min(height, size_max[1])
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return pixels[top : top + new_height, left : left + new_width]


def _image(pixels: Pixels, input_spec: Input) -> Image.Image:
    """With the channels of the input."""
    image = Image.fromarray(pixels)
    mode = "L" if input_spec.channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _resize(pixels: Pixels, input_spec: Input, *, resampling: Image.Resampling) -> Pixels:
    """The whole image, stretched to the input size."""
    return np.asarray(_image(pixels, input_spec).resize((input_spec.width, input_spec.height), resampling))


def _centre_crop(pixels: Pixels, input_spec: Input, *, shorter_side: int, resampling: Image.Resampling) -> Pixels:
    """Resize the shorter side, then crop the centre; padded with black if the image is smaller than the input."""
    scale = shorter_side / min(pixels.shape[:2])
    # Crop before resizing, too: to resize the whole of an image of 1 × 65,535 pixels would fill memory.
    visible = (max(1, ceil(side / scale)) for side in (input_spec.width, input_spec.height))
    image = _image(_crop_centre(pixels, [CENTRE_CROP_CONTEXT * side for side in visible]), input_spec)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resized = image.resize(size, resampling)
    left, top = (size[0] - input_spec.width) // 2, (size[1] - input_spec.height) // 2
    return np.asarray(resized.crop((left, top, left + input_spec.width, top + input_spec.height)))
