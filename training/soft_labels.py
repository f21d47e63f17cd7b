"""What trained packages say of the training images, for another network to learn from beside the labels.

    python -m training.soft_labels PACKAGE... --images 59000 --temperature 0.9 training/soft_labels.npz

Each image is shown to each package in ten views; what is kept is the mean of all logits, as probabilities.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from jobs.model_manifest import SecondLook
from training.data import LIMITS, load_fashion_mnist, tensors
from worker.inference.classifier import Classifier
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package
from worker.inference.second_look import views

CERTAIN = 255
BATCH = 500
TEN_VIEWS = SecondLook(below=1, shift_pixels=1)


def soft_labels(file: Path) -> Tensor:
    """float32, N × classes: probabilities."""
    with np.load(file) as arrays:
        said = torch.from_numpy(arrays["probabilities"]).float()
    return said / said.sum(dim=1, keepdim=True)


def said_of(classifiers: list[Classifier], inputs: Tensor) -> NDArray[np.float32]:
    """The mean logits of all views and packages. float32, N × 1 × height × width; returns float32, N × classes."""
    parts = list[NDArray[np.float32]]()
    for batch in tqdm(torch.split(inputs, BATCH), unit="batch"):
        shown = [batch.numpy(), *views(batch.numpy(), TEN_VIEWS)]
        parts.append(np.mean([it.forward(view) for it in classifiers for view in shown], axis=0))
    return np.concatenate(parts)


def write_soft_labels(logits: NDArray[np.float32], temperature: float, file: Path) -> None:
    probabilities = torch.softmax(torch.from_numpy(logits) / temperature, dim=1)
    np.savez_compressed(file, probabilities=(probabilities * CERTAIN).round().to(torch.uint8).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=55_000, help="so many, the first of the training images")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    options = parser.parse_args()
    inputs, _ = tensors(load_fashion_mnist(options.cache, held_out=60_000 - options.images).train)
    device = Device.of("auto", "bfloat16")
    logits = said_of([load_package(it, LIMITS, device) for it in options.packages], inputs)
    write_soft_labels(logits, options.temperature, options.file)


if __name__ == "__main__":
    main()
