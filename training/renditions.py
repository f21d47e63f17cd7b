"""Images of Fashion-MNIST as people upload them: in many file formats, rotated, on other backgrounds.

    python -m training.renditions fmnist-cnn [--held-out]

prints a package's accuracy for each rendition of 2,000 test images, or of the 1,000 images held out to the end. All
renditions draw backgrounds and positions from the same seed, so that they can be compared.
"""

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from training.data import HELD_OUT_TO_THE_END, LIMITS, Split, load_fashion_mnist
from worker.inference.classifier import Classifier
from worker.inference.images.fashion_mnist import isolate_object
from worker.inference.packages.load import load_package

Pixels = NDArray[np.uint8]
Rendition = Callable[[Pixels, Generator], bytes]

IMAGES = 2_000
SEED = 20261127
CLEAN_POINTS, NOISY_POINTS = 1.0, 5.0
"""Percentage points by which the accuracy of a rendition may differ from that of the raw images."""

_ORIENTATION = 0x0112  # the EXIF tag
# From an upright image to the pixels stored under an EXIF orientation.
_STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_MARGIN, _LARGER, _NOISE = 2, 8, 15.0
_LIGHT, _DARK = (150, 256), (0, 90)  # levels of each channel of a coloured background
_BATCH = 64


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(pixels: Pixels) -> bytes:
    """The raw image, light on black."""
    return _encode(Image.fromarray(pixels), "PNG", optimize=True)


def _upscaled(pixels: Pixels, times: int) -> Image.Image:
    height, width = pixels.shape
    return Image.fromarray(pixels).resize((width * times, height * times), Image.Resampling.BICUBIC)


def _product_photo(pixels: Pixels, times: int = 4) -> Image.Image:
    """A product photo: dark on white."""
    return _upscaled(255 - pixels, times)


def _on_colour(pixels: Pixels, draw: Generator, *, noise: float = 0) -> bytes:
    """With a margin, dark on a random light colour, or light on a random dark colour."""
    light = draw.random() < 0.5
    background = draw.integers(*(_LIGHT if light else _DARK), 3).astype(np.uint8)
    picture = _upscaled(255 - pixels if light else pixels, _LARGER)
    mask = _upscaled(np.where(pixels > 0, 255, 0).astype(np.uint8), _LARGER)
    side, margin = picture.width, _MARGIN * _LARGER
    canvas = Image.new("RGB", (side + 2 * margin, side + 2 * margin), tuple(map(int, background)))
    canvas.paste(picture.convert("RGB"), (margin, margin), mask)
    if noise:
        noisy = np.asarray(canvas) + draw.normal(0, noise, (canvas.height, canvas.width, 3))
        canvas = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
    return _encode(canvas, "PNG", compress_level=0)  # noise does not compress, and trying takes seconds


def _padded(pixels: Pixels, draw: Generator) -> bytes:
    """At a random position in a black frame of more than twice its size."""
    frame = np.zeros((64, 64), np.uint8)
    top, left = draw.integers(0, len(frame) - len(pixels) + 1, 2)
    frame[top : top + len(pixels), left : left + len(pixels)] = pixels
    return _encode(Image.fromarray(frame), "PNG")


def _cut_out(pixels: Pixels, _: Generator) -> bytes:
    """Dark on a transparent background."""
    picture = _product_photo(pixels).convert("RGBA")
    picture.putalpha(_upscaled(np.where(pixels > 0, 255, 0).astype(np.uint8), 4))
    return _encode(picture, "PNG", compress_level=1)


def _turned(orientation: int) -> Rendition:
    def rendition(pixels: Pixels, _: Generator) -> bytes:
        picture, transpose = _product_photo(pixels), _STORED_AS[orientation]
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        return _encode(picture if transpose is None else picture.transpose(transpose), "JPEG", quality=90, exif=exif)

    return rendition


RENDITIONS: dict[str, Rendition] = {
    "raw": lambda pixels, _: png(pixels),
    "inverted, on white": lambda pixels, _: _encode(Image.fromarray(255 - pixels), "PNG"),
    "inverted, × 20, JPEG q85": lambda pixels, _: _encode(_product_photo(pixels, 20), "JPEG", quality=85),
    "raw, × 20, JPEG q85": lambda pixels, _: _encode(_upscaled(pixels, 20), "JPEG", quality=85),
    "on a coloured background": _on_colour,
    "on a noisy background": lambda pixels, draw: _on_colour(pixels, draw, noise=_NOISE),
    "padded, off-centre": _padded,
    "RGBA, transparent": _cut_out,
    "16-bit PNG": lambda pixels, _: _encode(Image.fromarray(pixels.astype(np.uint16) * 257), "PNG"),
    **{f"JPEG, EXIF orientation {orientation}": _turned(orientation) for orientation in _STORED_AS},
    "WebP": lambda pixels, _: _encode(_product_photo(pixels), "WEBP", quality=85, method=0),
    "palette PNG": lambda pixels, _: _encode(
        _product_photo(pixels).convert("RGB").quantize(64), "PNG", compress_level=1
    ),
    "CMYK JPEG": lambda pixels, _: _encode(_product_photo(pixels).convert("CMYK"), "JPEG", quality=90),
}
NOISY = {"on a noisy background"}


def accuracies(
    classifier: Classifier, split: Split, names: tuple[str, ...] = tuple(RENDITIONS)
) -> Iterator[tuple[str, float]]:
    """The accuracy for each rendition: its name, and the share of images classified as labelled."""
    for name in names:
        draw = default_rng(SEED)
        uploads = [RENDITIONS[name](pixels, draw) for pixels in split.images]
        correct = 0
        for start in range(0, len(uploads), _BATCH):
            batch = uploads[start : start + _BATCH]
            outcomes = classifier.classify(batch, [1] * len(batch))
            for outcome, label in zip(outcomes, split.labels[start : start + _BATCH], strict=True):
                assert isinstance(outcome, list), f"{name}: {outcome}"
                correct += outcome[0].class_index == label
        yield name, correct / len(uploads)


def on_colours(split: Split, input_spec: Input, cache: Path) -> NDArray[np.uint8]:
    """Each image on a coloured background, after the preprocessing mode `fmnist`: N × height × width.

    This takes minutes for all images, so the result is stored in a file in `cache`.
    """
    file = cache / f"on-colours-{len(split.images)}.npy"
    if not file.exists():
        draw = default_rng(SEED)
        prepared = np.empty((len(split.images), input_spec.height, input_spec.width), np.uint8)
        for number, pixels in enumerate(split.images):
            with Image.open(BytesIO(_on_colour(pixels, draw))) as picture:
                prepared[number] = isolate_object(np.asarray(picture), input_spec)
        new = file.with_suffix(".new.npy")
        np.save(new, prepared)
        new.replace(file)
    return np.asarray(np.load(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    parser.add_argument("--held-out", action="store_true", help="use the images that were held out to the end")
    options = parser.parse_args()
    classifier = load_package(options.models_dir / options.model, LIMITS)
    data = load_fashion_mnist(options.cache, HELD_OUT_TO_THE_END)
    split = data.held_out if options.held_out else data.test
    split = Split(split.images[:IMAGES], split.labels[:IMAGES])
    print("| rendition | accuracy | points from raw |\n|---|---|---|")
    raw = None
    for name, accuracy in accuracies(classifier, split):
        raw = accuracy if raw is None else raw
        print(f"| {name} | {accuracy:.2%} | {100 * (accuracy - raw):+.2f} |", flush=True)


if __name__ == "__main__":
    main()
