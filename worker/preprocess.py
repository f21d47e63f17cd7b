"""From a decoded image to what a network takes. A manifest names its mode."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.models import Input
from worker.images import Needed

REDUCED_MIN = 3  # times the input's size: from there on, Pillow's documentation calls a reduction indistinguishable


@dataclass(frozen=True, slots=True)
class Mode:
    """What is done to images, in two steps: in Pillow to each as it comes, in numpy to all of a batch at once."""

    picture: Callable[[Image.Image, Input], Image.Image]
    """The part of an image that the network sees: of the input's size, mode L or RGB as its channels are 1 or 3."""
    values: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """uint8 to float32, N × height × width × channels."""
    keeps_gray: bool = False
    """Whether `picture` leaves a gray image of the input's size as it is."""
    reduces: bool = False
    """Whether a large JPEG may be decoded at a smaller scale, still `REDUCED_MIN` times the input's size or more."""

    def needed(self, wanted: Input) -> Needed | None:
        """What the decoder has to deliver."""
        if not self.reduces:
            return None
        return Needed(REDUCED_MIN * wanted.width, REDUCED_MIN * wanted.height, colour=wanted.channels > 1)


def _book_picture(image: Image.Image, wanted: Input) -> Image.Image:
    gray = image if image.mode == "L" else image.convert("L")
    return gray if gray.size == (wanted.width, wanted.height) else gray.resize((wanted.width, wanted.height))


def _book_values(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.divide(255 - pixels, 255, dtype=np.float32)
    return scaled


BOOK = Mode(_book_picture, _book_values, keeps_gray=True, reduces=True)
"""The book's own lines: grayscale, resize, 255 − x, / 255, so in [0, 1].

Right for a dark object on a white background; a Fashion-MNIST image itself is the reverse.
"""

MODES: dict[str, Mode] = {"book": BOOK}
