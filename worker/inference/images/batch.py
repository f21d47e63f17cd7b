"""The pictures of a batch, below each other on one image: an array of each would cost as much as its decoding."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from worker.inference.images.decode import ImageLimits, check_size, decode
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size
from worker.inference.images.preprocess import Mode


class ImageBatch:
    def __init__(self, mode: Mode, wanted: Input, pictures_max: int) -> None:
        self._mode = mode
        self._wanted = wanted
        self._needed = mode.needed(wanted)
        self._size = wanted.width, wanted.height
        self._plain = self._size if mode.keeps_gray and wanted.channels == 1 else None
        self._image = Image.new("L" if wanted.channels == 1 else "RGB", (wanted.width, wanted.height * pictures_max))
        self._pictures = 0

    def add(self, upload: bytes | memoryview, limits: ImageLimits) -> None:
        """Decode an upload and draw what the network is to see of it.

        Raises:
            BadImage: with the code for the item; nothing was added.
            MemoryError: there is not enough to decode it.
        """
        top = self._pictures * self._wanted.height
        if not self._is_drawn(upload, limits, (0, top, self._wanted.width, top + self._wanted.height)):
            image = decode(upload, limits, self._needed)
            self._image.paste(self._mode.picture(image, self._wanted), (0, top))
        self._pictures += 1

    def inputs(self) -> NDArray[np.float32]:
        """What the network takes, of all that was added: float32, N × channels × height × width."""
        width, height = self._size
        pixels = np.asarray(self._image)[: self._pictures * height]
        return self._mode.values(pixels.reshape(self._pictures, height, width, -1)).transpose(0, 3, 1, 2)

    def _is_drawn(self, upload: bytes | memoryview, limits: ImageLimits, box: tuple[int, int, int, int]) -> bool:
        """Draw a picture that needs nothing but its decoding; False: it needs more, or is damaged."""
        if self._plain is None or plain_gray_size(upload) != self._plain:
            return False
        check_size(self._plain, limits)
        if draw_plain_gray(upload, self._image, box):
            return True
        self._image.paste(0, box)  # the next picture in this place must not show rows of this one
        return False
