"""Predictions of trained packages for the training images: another network learns from them as well as from the labels.

    python -m training.soft_labels PACKAGE... --images 59000 --temperature 0.9 training/soft_labels.npz

Each package classifies ten views of each image. The file holds the probabilities of the mean of all these logits.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from training.data import LIMITS, load_fashion_mnist, tensors
from worker.inference.classifier import Classifier
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package

FloatArray = NDArray[np.float32]

BATCH = 500
_PROBABILITY_ONE = 255  # the file stores probabilities as uint8
_DIRECTIONS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # pixels down and right


def soft_labels(file: Path) -> Tensor:
    """Read a file that `write_soft_labels` wrote. Returns probabilities: float32, N × classes."""
    with np.load(file) as arrays:
        probabilities = torch.from_numpy(arrays["probabilities"]).float()
    return probabilities / probabilities.sum(dim=1, keepdim=True)


def ten_views(inputs: FloatArray) -> Iterator[FloatArray]:
    """The images as they are and shifted by one pixel to each of the four sides, each of these also mirrored.

    Inputs and views: float32, N × channels × height × width. Pixels that a shift uncovers are 0.
    """
    height, width = inputs.shape[2:]
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for down, right in _DIRECTIONS:
        top, left = 1 - down, 1 - right
        view = padded[:, :, top : top + height, left : left + width]
        yield view
        yield np.ascontiguousarray(view[..., ::-1])


def mean_logits(classifiers: list[Classifier], inputs: Tensor) -> FloatArray:
    """The mean logits of all packages and views. float32, N × 1 × height × width; returns float32, N × classes."""
    parts = list[FloatArray]()
    for batch in tqdm(torch.split(inputs, BATCH), unit="batch"):
        views = list(ten_views(batch.numpy()))
        parts.append(np.mean([classifier.outputs(view) for classifier in classifiers for view in views], axis=0))
    return np.concatenate(parts)


def write_soft_labels(logits: FloatArray, temperature: float, file: Path) -> None:
    probabilities = torch.softmax(torch.from_numpy(logits) / temperature, dim=1)
    np.savez_compressed(file, probabilities=(probabilities * _PROBABILITY_ONE).round().to(torch.uint8).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+", help="folders of model packages")
    parser.add_argument("file", type=Path, help="the .npz file to write")
    parser.add_argument("--images", type=int, default=55_000, help="number of training images, from the first on")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the mean logits")
    parser.add_argument("--cache", type=Path, default=Path("data/training"), help="for the downloaded data set")
    options = parser.parse_args()
    inputs, _ = tensors(load_fashion_mnist(options.cache, held_out=60_000 - options.images).train)
    device = Device.of("auto", "bfloat16")
    logits = mean_logits([load_package(folder, LIMITS, device) for folder in options.packages], inputs)
    write_soft_labels(logits, options.temperature, options.file)


if __name__ == "__main__":
    main()
