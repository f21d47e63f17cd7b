"""The in-process limit: CPU of decoding and the forward pass on one core, without HTTP, queue or store.

    .venv/bin/python -m bench.limit

It classifies with the model that a worker loads, in batches of 64 and 256, on one thread.
"""

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.bulk.archives import images
from bench.photos import jpeg, photo
from jobs.codec import pack_outcomes
from tests.support.processes import MODEL
from training.data import load_fashion_mnist
from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

BATCHES = (64, 256)
TOP_K = 5  # the API's default
ROUNDS = 7
ROUND_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one core in batches of this size."""

    kind: str
    batch: int
    upload_bytes: int
    """Mean of an image."""
    cpu_us: float
    """CPU time (µs) per image for decoding, preprocessing, forward pass and packing of results: median of rounds."""

    @property
    def images_per_second(self) -> float:
        return 1e6 / self.cpu_us


def limits(batches: Sequence[int] = BATCHES) -> list[Limit]:
    """The limits for a PNG and a photo's JPEG in batches of each size. Sets torch to one thread."""
    torch.set_num_threads(1)
    settings = WorkerSettings()
    classifier = load_package(settings.models_dir / MODEL, ImageLimits.of(settings))
    kinds = {"PNG": images()[:1024], "JPEG": jpegs(32)}
    for uploads in kinds.values():
        _cpu_us(classifier, uploads, 64, ROUND_SECONDS)  # warm-up
    cases = list(itertools.product(kinds, batches))
    rounds = [[_cpu_us(classifier, kinds[kind], batch, ROUND_SECONDS) for kind, batch in cases] for _ in range(ROUNDS)]
    return [
        Limit(kind, batch, round(statistics.mean(map(len, kinds[kind]))), statistics.median(of_case))
        for (kind, batch), of_case in zip(cases, zip(*rounds, strict=True), strict=True)
    ]


def jpegs(count: int) -> list[bytes]:
    """Photos of products of Fashion-MNIST: 640 × 480, about 64 KiB."""
    rng = np.random.default_rng(20)
    products = load_fashion_mnist(Path("data/training")).test.images
    return [jpeg(photo(products[number], rng)) for number in range(count)]


def _cpu_us(classifier: Classifier, uploads: list[bytes], batch: int, seconds: float) -> float:
    """CPU time (µs) per image, in batches for at least `seconds`."""
    endless, top_ks, done = itertools.cycle(uploads), [TOP_K] * batch, 0
    started = now = time.process_time()
    while now < started + seconds:
        outcomes = classifier.classify(list(itertools.islice(endless, batch)), top_ks)
        assert pack_outcomes(classifier.card.ref, outcomes)
        done += batch
        now = time.process_time()
    return 1e6 * (now - started) / done


if __name__ == "__main__":
    print(f"{'image':5} {'bytes':>6} {'batch':>5} {'CPU µs':>8} {'images/s a core':>16}")
    for it in limits():
        print(f"{it.kind:5} {it.upload_bytes:6} {it.batch:5} {it.cpu_us:8.1f} {it.images_per_second:16,.0f}")
