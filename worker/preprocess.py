"""From a decoded image to what a network takes. One function a mode; a manifest names its mode."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.models import Input

Mode = Callable[[Image.Image, Input], NDArray[np.float32]]


def book(image: Image.Image, wanted: Input) -> NDArray[np.float32]:
    """The book's own lines: grayscale, resize, 255 − x, / 255.

    Right for a dark object on a white background; a Fashion-MNIST image itself is the reverse.

    Returns:
        float32, 1 × height × width, in [0, 1].
    """
    gray = image if image.mode == "L" else image.convert("L")
    if gray.size != (wanted.width, wanted.height):
        gray = gray.resize((wanted.width, wanted.height))
    scaled: NDArray[np.float32] = np.divide(255 - np.asarray(gray), 255, dtype=np.float32)
    return scaled[np.newaxis]


MODES: dict[str, Mode] = {"book": book}
