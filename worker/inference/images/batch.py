"""A batch of images, each decoded and brought to the input size of a network."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from worker.inference.images.decode import decode
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size
from worker.inference.images.limits import ImageLimits, check_size
from worker.inference.images.preprocess import Preprocessor


class ImageBatch:
    def __init__(self, preprocessor: Preprocessor, input_spec: Input, images_max: int) -> None:
        self._preprocessor = preprocessor
        self._input_spec = input_spec
        self._hints = preprocessor.decode_hints(input_spec)
        colours = () if input_spec.channels == 1 else (input_spec.channels,)
        self._pixels = np.zeros((images_max, input_spec.height, input_spec.width, *colours), np.uint8)
        self._canvas = self._gray_canvas() if preprocessor.keeps_gray and input_spec.channels == 1 else None
        self._images = 0

    def add(self, upload: bytes | memoryview, limits: ImageLimits) -> None:
        """Decode an upload, bring it to the input size and append it.

        Raises:
            DecodeError: with the code for the item; nothing was added.
            SlowImage: it would take longer than the limits allow; nothing was added.
            MemoryError: there is not enough memory to decode the image.
        """
        if self._canvas is None or not self._draw_plain_gray(self._canvas, upload, limits):
            image = decode(upload, limits, self._hints)
            self._pixels[self._images] = self._preprocessor.to_input_size(image, self._input_spec)
        self._images += 1

    def inputs(self) -> NDArray[np.float32]:
        """The network's input for all images added: float32, N × channels × height × width."""
        pixels = self._pixels[: self._images]
        channels_last = pixels.reshape(*pixels.shape[:3], -1)
        return self._preprocessor.to_floats(channels_last).transpose(0, 3, 1, 2)

    def _gray_canvas(self) -> Image.Image:
        """All images below each other. It has no memory of its own: drawing on it writes the pixels."""
        images, height, width = self._pixels.shape
        return Image.frombuffer("L", (width, images * height), self._pixels, "raw", "L", 0, 1)

    def _draw_plain_gray(self, canvas: Image.Image, upload: bytes | memoryview, limits: ImageLimits) -> bool:
        """Draw an image that needs nothing but decoding. Returns False if it needs more, or is damaged."""
        width, height = size = self._input_spec.width, self._input_spec.height
        if plain_gray_size(upload) != size:
            return False
        check_size(width, height, limits)
        top = self._images * height
        if draw_plain_gray(upload, canvas, (0, top, width, top + height)):
            return True
        self._pixels[self._images] = 0  # the next image in this box must not show rows of this one
        return False
