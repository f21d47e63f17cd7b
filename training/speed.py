"""The CPU time of a package, and how much bfloat16 changes its confidences.

    python -m training.speed fmnist-cnn

classifies the test images in batches of 64 on one core. Their labels are not used.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import LIMITS, load_fashion_mnist, tensors
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package

BATCH, ROUNDS = 64, 3
PRECISIONS = ("float32", "bfloat16")
NOTABLE_DIFFERENCE = 0.01  # of a confidence


class Cost(NamedTuple):
    milliseconds: float
    """Mean CPU time of one image: the fastest of several rounds over all images."""
    confidences: NDArray[np.float32]
    """N × classes."""


def measure(folder: Path, precision: str, batches: list[NDArray[np.float32]]) -> Cost:
    classifier = load_package(folder, LIMITS, Device.of("cpu", precision))
    rounds = list[float]()
    for _ in range(ROUNDS):
        started = time.process_time()
        outputs = [classifier.outputs(batch) for batch in batches]
        rounds.append(time.process_time() - started)
    confidences = classifier.head.confidences(np.concatenate(outputs))
    return Cost(1000 * min(rounds) / len(confidences), confidences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"), help="for the downloaded data set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    inputs, _ = tensors(load_fashion_mnist(options.cache).test)
    batches = [batch.numpy() for batch in torch.split(inputs, BATCH)]
    print(
        f"| precision | ms an image | other classes | largest difference of a confidence | above {NOTABLE_DIFFERENCE} |"
    )
    print("|---|---|---|---|---|")
    baseline = None
    for precision in PRECISIONS:
        cost = measure(options.models_dir / options.model, precision, batches)
        baseline = baseline or cost
        other_classes = (cost.confidences.argmax(axis=1) != baseline.confidences.argmax(axis=1)).sum()
        differences = np.abs(cost.confidences - baseline.confidences).max(axis=1)
        numbers = f"{other_classes} | {differences.max():.4f} | {(differences > NOTABLE_DIFFERENCE).sum()}"
        print(f"| {precision} | {cost.milliseconds:.2f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
