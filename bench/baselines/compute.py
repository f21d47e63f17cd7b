"""Decode and classify, and nothing else: the limit that one process of a bulk job could reach.

MODEL_PACKAGE=weights/imagenet python -m bench.baselines.compute FOLDER SECONDS BATCH

Prints `ready`, waits for a line, classifies the images of a folder again and again, and prints how many it did in how
many seconds.
"""

import itertools
import os
import sys
import time
from pathlib import Path

import torch

from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

TOP_K = 5


def main(folder: Path, seconds: float, batch: int) -> None:
    torch.set_num_threads(1)
    classifier = load_package(Path(os.environ["MODEL_PACKAGE"]), ImageLimits.of(WorkerSettings()))
    images = itertools.cycle([path.read_bytes() for path in sorted(folder.iterdir())])
    classifier.classify(list(itertools.islice(images, batch)), [TOP_K] * batch)
    print("ready", flush=True)
    sys.stdin.readline()
    done, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        classifier.classify(list(itertools.islice(images, batch)), [TOP_K] * batch)
        done += batch
    print(done, now - began, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
