"""What the baselines do with images: the book's own code, or, with MODEL_PACKAGE, a model package.

With a package, network and decoding are Darkroom's, as exported and without its optimizations, so that only the design
differs.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.baselines import network
from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

TOP_K = 5

Predict = Callable[[Sequence[bytes]], list[dict[str, str]]]
"""The answers for some images, by one forward pass if the images are of a package."""


def load_predictor() -> Predict:
    """Load the network, on one thread: two processes share two cores."""
    torch.set_num_threads(1)
    if folder := os.environ.get("MODEL_PACKAGE"):
        limits = ImageLimits.of(WorkerSettings())
        return partial(_classify, load_package(Path(folder), limits, optimize=_unchanged))
    return partial(_predict, network.load_network())


def _classify(classifier: Classifier, images: Sequence[bytes]) -> list[dict[str, str]]:
    found = []
    for outcome in classifier.classify(images, [TOP_K] * len(images)):
        assert isinstance(outcome, list)
        best = outcome[0]
        found.append(
            {"class": classifier.card.classes[best.class_index], "confidence": f"{best.confidence:.4f}"},
        )
    return found


def _predict(loaded: nn.Module, images: Sequence[bytes]) -> list[dict[str, str]]:
    return [network.predict(loaded, image) for image in images]


def _unchanged(loaded: nn.Module, *_: Any, **__: Any) -> nn.Module:
    return loaded
