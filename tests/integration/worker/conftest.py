from pathlib import Path

import pytest

from worker.classifier import Classifier
from worker.images import ImageLimits
from worker.package import load_package

SHIPPED = Path(__file__).parents[3] / "weights" / "fmnist-mlp"


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """The shipped model."""
    return load_package(SHIPPED, ImageLimits(pixels_max=50_000_000, frames_max=1))
