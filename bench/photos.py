"""Synthetic photos of Fashion-MNIST's products."""

from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

SIZE = (640, 480)
JPEG_BYTES = 64 << 10
_QUALITIES = range(30, 96)


def photo(product: NDArray[np.uint8], rng: Generator, size: tuple[int, int] = SIZE) -> Image.Image:
    """A product (uint8, 28 × 28, light on black) on a bright backdrop with a gradient of light, a texture, and noise.

    The product fills the frame, as it does in Fashion-MNIST; its colour and the backdrop's are random.
    """
    width, height = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    cover = np.asarray(Image.fromarray(product).resize(size, Image.Resampling.BICUBIC), np.float32)[..., None] / 255
    slope = rng.uniform(-12, 12, 2)
    light = slope[0] * x + slope[1] * y + rng.uniform(0, 6) * np.sin(x * rng.uniform(20, 90) + y * rng.uniform(20, 90))
    backdrop = rng.uniform(225, 255, 3) + light[..., None]
    fabric = rng.uniform(0, 90, 3) + _texture(rng, size)[..., None]
    noise = rng.normal(0, rng.uniform(1, 6), (height, width, 3))
    scene = backdrop * (1 - cover) + fabric * cover + noise
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def _texture(rng: Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth noise of two scales: float32, height × width, amplitude of some tens."""
    width, height = size
    layers = (
        amplitude * np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        for scale, amplitude in ((40, 12), (6, 8))
        for coarse in [rng.normal(0, 1, (height // scale + 2, width // scale + 2)).astype(np.float32)]
    )
    texture: NDArray[np.float32] = np.sum(list(layers), axis=0)
    return texture


def jpeg(image: Image.Image, bytes_max: int = JPEG_BYTES) -> bytes:
    """The JPEG of the best quality that has at most `bytes_max` bytes, or of the lowest quality."""
    low, high = _QUALITIES.start, _QUALITIES.stop - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_encoded(image, middle)) <= bytes_max else (low, middle - 1)
    return _encoded(image, low)


def _encoded(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
