"""A batch of images, decoded below each other into one: an array for each would take as long as decoding it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from worker.inference.images.decode import ImageLimits, check_size, decode
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size
from worker.inference.images.preprocess import Preprocessor


class ImageBatch:
    def __init__(self, preprocessor: Preprocessor, input_spec: Input, images_max: int) -> None:
        self._preprocessor = preprocessor
        self._input_spec = input_spec
        self._hints = preprocessor.decode_hints(input_spec)
        self._size = input_spec.width, input_spec.height
        self._plain_size = self._size if preprocessor.keeps_gray and input_spec.channels == 1 else None
        mode = "L" if input_spec.channels == 1 else "RGB"
        self._pixels = Image.new(mode, (input_spec.width, input_spec.height * images_max))
        self._images = 0

    def add(self, upload: bytes | memoryview, limits: ImageLimits) -> None:
        """Decode an upload, bring it to the input size and append it.

        Raises:
            DecodeError: with the code for the item; nothing was added.
            MemoryError: there is not enough memory to decode the image.
        """
        width, height = self._size
        top = self._images * height
        if not self._draw_plain_gray(upload, limits, (0, top, width, top + height)):
            image = decode(upload, limits, self._hints)
            self._pixels.paste(self._preprocessor.to_input_size(image, self._input_spec), (0, top))
        self._images += 1

    def inputs(self) -> NDArray[np.float32]:
        """The network's input for all images added: float32, N × channels × height × width."""
        width, height = self._size
        pixels = np.asarray(self._pixels)[: self._images * height]
        return self._preprocessor.to_floats(pixels.reshape(self._images, height, width, -1)).transpose(0, 3, 1, 2)

    def _draw_plain_gray(self, upload: bytes | memoryview, limits: ImageLimits, box: tuple[int, int, int, int]) -> bool:
        """Draw an image that needs nothing but decoding. Returns False if it needs more, or is damaged."""
        if self._plain_size is None or plain_gray_size(upload) != self._plain_size:
            return False
        check_size(self._plain_size, limits)
        if draw_plain_gray(upload, self._pixels, box):
            return True
        self._pixels.paste(0, box)  # the next image in this box must not show rows of this one
        return False
