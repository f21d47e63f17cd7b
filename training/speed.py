"""What a package costs, and what bfloat16 changes: the test images in batches of 64, on one core, both looks included.

python -m training.speed fmnist-cnn
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import LIMITS, load_fashion_mnist, tensors
from worker.compute import Compute
from worker.package import load_package

BATCH, ROUNDS = 64, 3
PRECISIONS = ("float32", "bfloat16")


class Cost(NamedTuple):
    milliseconds: float
    """CPU time of an image, on average; the least of some rounds over all images."""
    answers: NDArray[np.int64]
    once: NDArray[np.float32]
    """Confidences of one look at each image: N × classes."""


def cost(folder: Path, precision: str, batches: list[NDArray[np.float32]]) -> Cost:
    classifier = load_package(folder, LIMITS, Compute.of("cpu", precision))
    rounds = list[float]()
    for _ in range(ROUNDS):
        started = time.process_time()
        outputs = [classifier.outputs(batch) for batch in batches]
        rounds.append(time.process_time() - started)
    once = np.concatenate([classifier.forward(batch) for batch in batches])
    milliseconds = 1000 * min(rounds) / len(once)
    return Cost(milliseconds, np.concatenate(outputs).argmax(axis=1), classifier.head.confidences(once))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    inputs, labels = tensors(load_fashion_mnist(options.cache).test)
    batches = [batch.numpy() for batch in torch.split(inputs, BATCH)]
    print("| precision | ms an image | right | other answers | largest difference of a confidence, at one look |")
    print("|---|---|---|---|---|")
    full = None
    for precision in PRECISIONS:
        found = cost(options.models_dir / options.model, precision, batches)
        full = full or found
        right = float((found.answers == labels.numpy()).mean())
        others = int((found.answers != full.answers).sum())
        difference = float(np.abs(found.once - full.once).max())
        print(f"| {precision} | {found.milliseconds:.2f} | {right:.2%} | {others} | {difference:.4f} |", flush=True)


if __name__ == "__main__":
    main()
