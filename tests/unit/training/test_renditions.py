"""Accuracy of the shipped network on 2,000 test images, for each rendition in docs/models/README.md."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training.data import Split, load_fashion_mnist
from training.fmnist_cnn import INPUT
from training.renditions import (
    CLEAN_POINTS,
    IMAGES,
    NOISY,
    NOISY_POINTS,
    RENDITIONS,
    accuracies,
    on_colours,
)
from worker.inference.packages.load import load_package


@cache
def accuracy(name: str) -> float:
    classifier = load_package(ROOT / "weights" / "fmnist-cnn", LIMITS)
    test = load_fashion_mnist(ROOT / "data" / "training").test
    ((_, measured),) = accuracies(classifier, Split(test.images[:IMAGES], test.labels[:IMAGES]), (name,))
    return measured


@pytest.mark.parametrize("name", RENDITIONS)
def test_a_rendition_is_classified_as_well_as_the_raw_images(name: str) -> None:
    allowed = NOISY_POINTS if name in NOISY else CLEAN_POINTS
    fewer_correct = round(IMAGES * (accuracy("raw") - accuracy(name)))
    assert 100 * fewer_correct <= allowed * IMAGES


def test_images_on_colours_are_stored_and_reproducible(tmp_path: Path) -> None:
    images = load_fashion_mnist(ROOT / "data" / "training").held_out.images[:30]
    split = Split(images, np.zeros(30, np.uint8))
    first = on_colours(split, INPUT, tmp_path)
    assert first.shape == (30, 28, 28)
    assert [it.name for it in tmp_path.iterdir()] == ["on-colours-30.npy"]
    (tmp_path / "on-colours-30.npy").rename(tmp_path / "other.npy")
    assert np.array_equal(on_colours(split, INPUT, tmp_path), first)
    # Each is more similar to its own image than to the next one.
    own, other = (np.abs(first.astype(int) - it).mean(axis=(1, 2)) for it in (images, np.roll(images, 1, 0)))
    assert (own < other).mean() > 0.9
