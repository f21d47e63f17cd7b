"""Images of objects that Fashion-MNIST does not have.

    python -m training.unknown fmnist-cnn

prints for how many of them, and of 2,000 test images, a package gives the warning `unfamiliar`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from jobs.records import Unfamiliar
from training.data import LIMITS, load_fashion_mnist
from training.renditions import IMAGES, SEED, Pixels, png
from worker.inference.classifier import Classifier
from worker.inference.packages.load import load_package

_SIDE = 112
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTUVWXYZ"


def _letter(draw: Generator) -> Image.Image:
    """A character, dark on white, at a random place and size."""
    picture = Image.new("L", (_SIDE, _SIDE), 255)
    font = ImageFont.load_default(float(draw.uniform(40, 100)))
    position = float(draw.uniform(5, 30)), float(draw.uniform(5, 30))
    ImageDraw.Draw(picture).text(position, _LETTERS[draw.integers(len(_LETTERS))], int(draw.integers(0, 120)), font)
    return picture


def _noise(draw: Generator) -> Image.Image:
    coarse = draw.integers(0, 256, (draw.integers(4, _SIDE),) * 2).astype(np.uint8)
    return Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)


def _shapes(draw: Generator) -> Image.Image:
    """Overlapping circles and rectangles."""
    picture = Image.new("L", (_SIDE, _SIDE), int(draw.integers(0, 256)))
    for _ in range(draw.integers(2, 9)):
        first, second = np.sort(draw.integers(0, _SIDE, (2, 2)), axis=0).tolist()
        shape = ImageDraw.Draw(picture).ellipse if draw.random() < 0.5 else ImageDraw.Draw(picture).rectangle
        shape((*first, *second), fill=int(draw.integers(0, 256)))
    return picture


def _stripes(draw: Generator) -> Image.Image:
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    angle, width = draw.uniform(0, np.pi), draw.uniform(3, 30)
    waves = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / width)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8))


UNKNOWN: dict[str, Callable[[Generator], Image.Image]] = {
    "letters and digits": _letter,
    "noise, fine to coarse": _noise,
    "circles and rectangles": _shapes,
    "stripes": _stripes,
}


def upload(kind: str, draw: Generator) -> bytes:
    pixels: Pixels = np.asarray(UNKNOWN[kind](draw))
    return png(pixels)


def warned_share(classifier: Classifier, uploads: Sequence[bytes]) -> float:
    """The share of uploads that get the warning."""
    outcomes = [classifier.classify([image], [1])[0] for image in uploads]
    return sum(isinstance(outcome, Unfamiliar) for outcome in outcomes) / len(uploads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    parser.add_argument("--pictures", type=int, default=500, help="how many of each kind")
    options = parser.parse_args()
    classifier = load_package(options.models_dir / options.model, LIMITS)
    print("| images | with the warning |\n|---|---|")
    test = load_fashion_mnist(options.cache).test
    print(f"| test images | {warned_share(classifier, list(map(png, test.images[:IMAGES]))):.1%} |", flush=True)
    for kind in UNKNOWN:
        draw = np.random.default_rng(SEED)
        uploads = [upload(kind, draw) for _ in range(options.pictures)]
        print(f"| {kind} | {warned_share(classifier, uploads):.1%} |", flush=True)


if __name__ == "__main__":
    main()
