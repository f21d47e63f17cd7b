"""How long a package takes for the test images, a second look included: CPU time of batches of 64 on one core.

python -m training.speed fmnist-cnn
"""

import argparse
import time
from pathlib import Path

import torch

from training.data import LIMITS, load_fashion_mnist, tensors
from worker.package import load_package

BATCH, ROUNDS = 64, 3


def milliseconds(folder: Path, cache: Path) -> float:
    """Of an image, on average; the least of some rounds over all test images."""
    torch.set_num_threads(1)
    classifier = load_package(folder, LIMITS)
    batches = [batch.numpy() for batch in torch.split(tensors(load_fashion_mnist(cache).test)[0], BATCH)]
    rounds = list[float]()
    for _ in range(ROUNDS):
        started = time.process_time()
        for batch in batches:
            classifier.outputs(batch)
        rounds.append(time.process_time() - started)
    return 1000 * min(rounds) / sum(map(len, batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument("--cache", type=Path, default=Path("data/training"))
    options = parser.parse_args()
    print(f"{milliseconds(options.models_dir / options.model, options.cache):.3f} ms an image, at batch {BATCH}")


if __name__ == "__main__":
    main()
