"""Accuracy of the shipped network on 2,000 test images, in each rendition of docs/MODELS.md."""

from functools import cache

import pytest

from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training.data import Split, load_fashion_mnist
from training.renditions import BACKGROUND_POINTS, BACKGROUNDS, CLEAN_POINTS, IMAGES, RENDITIONS, accuracies
from worker.package import load_package


@cache
def accuracy(name: str) -> float:
    classifier = load_package(ROOT / "weights" / "fmnist-cnn", LIMITS)
    test = load_fashion_mnist(ROOT / "data" / "training").test
    ((_, found),) = accuracies(classifier, Split(test.images[:IMAGES], test.labels[:IMAGES]), (name,))
    return found


@pytest.mark.parametrize("name", RENDITIONS)
def test_a_rendition_is_classified_as_well_as_the_images_themselves(name: str) -> None:
    allowed = BACKGROUND_POINTS if name in BACKGROUNDS else CLEAN_POINTS
    assert 100 * (accuracy("raw") - accuracy(name)) <= allowed
