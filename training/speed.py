"""What a package costs, and what bfloat16 changes: test images in batches of 64, on one core, both looks included.

Their labels are not looked at.

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
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package

BATCH, ROUNDS = 64, 3
PRECISIONS = ("float32", "bfloat16")
NOTABLE = 0.01  # a difference of a confidence


class Cost(NamedTuple):
    milliseconds: float
    """CPU time of an image, on average; the least of some rounds over all images."""
    confidences: NDArray[np.float32]
    """After both looks: N × classes."""
    once: NDArray[np.float32]
    """After one look."""


def cost(folder: Path, precision: str, batches: list[NDArray[np.float32]]) -> Cost:
    classifier = load_package(folder, LIMITS, Device.of("cpu", precision))
    rounds = list[float]()
    for _ in range(ROUNDS):
        started = time.process_time()
        outputs = [classifier.outputs(batch) for batch in batches]
        rounds.append(time.process_time() - started)
    once = np.concatenate([classifier.forward(batch) for batch in batches])
    milliseconds = 1000 * min(rounds) / len(once)
    says = classifier.head.confidences
    return Cost(milliseconds, says(np.concatenate(outputs)), says(once))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    inputs, _ = tensors(load_fashion_mnist(options.cache).test)
    batches = [batch.numpy() for batch in torch.split(inputs, BATCH)]
    print("| precision | ms an image | other answers | largest difference of a confidence | at one look | above 0.01 |")
    print("|---|---|---|---|---|---|")
    full = None
    for precision in PRECISIONS:
        found = cost(options.models_dir / options.model, precision, batches)
        full = full or found
        others = int((found.confidences.argmax(axis=1) != full.confidences.argmax(axis=1)).sum())
        twice, once = (
            np.abs(one - other).max(axis=1)
            for one, other in ((found.confidences, full.confidences), (found.once, full.once))
        )
        numbers = f"{others} | {twice.max():.4f} | {once.max():.4f} | {(once > NOTABLE).sum()}"
        print(f"| {precision} | {found.milliseconds:.2f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
