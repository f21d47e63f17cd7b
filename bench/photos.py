"""Synthetic photos of Fashion-MNIST's products.

    python -m bench.photos [--photos 200] [--repeats 30]

prints figures of decision 39: by how many levels the pixels of the mode `book` are off the book's own lines, how many
classes of `fmnist-mlp` are others, and the CPU time that one image takes, the least of all repeats.
"""

import argparse
import time
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from training.data import load_fashion_mnist
from worker.inference.images.batch import ImageBatch
from worker.inference.images.limits import ImageLimits
from worker.inference.images.preprocess import BOOK, FMNIST, Preprocessor
from worker.inference.packages.load import load_package
from worker.inference.settings import InferenceSettings

ROOT = Path(__file__).parents[1]
INPUT = Input(channels=1, height=28, width=28)
LIMITS = ImageLimits.of(InferenceSettings())
SEED = 39
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


def the_books_lines(upload: bytes) -> NDArray[np.float32]:
    """What the book's code makes of a file."""
    x = cv2.imdecode(np.frombuffer(upload, np.uint8), 0)
    assert x is not None
    x = cv2.resize(x, (28, 28))
    x = 255 - x
    return np.asarray(x / 255, np.float32)[np.newaxis, np.newaxis]


def prepared(preprocessor: Preprocessor, upload: bytes) -> NDArray[np.float32]:
    batch = ImageBatch(preprocessor, INPUT, 1)
    batch.add(upload, LIMITS)
    return batch.inputs()


def microseconds(preprocessor: Preprocessor, upload: bytes) -> float:
    began = time.process_time_ns()
    prepared(preprocessor, upload)
    return (time.process_time_ns() - began) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    products, rng = load_fashion_mnist(ROOT / "data/training").test.images, np.random.default_rng(SEED)
    classifier = load_package(ROOT / "weights/fmnist-mlp", LIMITS)
    levels, others = list[float](), 0
    for product in products[: options.photos]:
        upload = jpeg(photo(product, rng))
        ours, books = prepared(BOOK, upload), the_books_lines(upload)
        levels.append(255 * float(np.abs(ours - books).max()))
        others += int(classifier.outputs(ours).argmax() != classifier.outputs(books).argmax())
    print(f"{len(levels)} photos: at most {max(levels):.0f} levels off, {np.mean(levels):.1f} on average")
    print(f"other classes: {others}\n")
    small = BytesIO()
    Image.fromarray(255 - products[0]).save(small, "PNG")
    large = jpeg(photo(products[0], rng, (4000, 3000)), 3 << 20)
    pictures = {"PNG of 28 × 28": small.getvalue(), "JPEG of 640 × 480": upload, "JPEG of 12 megapixels": large}
    print("| | µs |\n|---|---|")
    for mode, preprocessor in {"fmnist": FMNIST, "book": BOOK}.items():
        for name, picture in pictures.items():
            least = min(microseconds(preprocessor, picture) for _ in range(options.repeats))
            print(f"| `{mode}`, {name} | {least:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
