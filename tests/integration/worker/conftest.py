from pathlib import Path

import pytest

from tests.support.pictures import LIMITS
from worker.inference.classifier import Classifier
from worker.inference.packages.load import load_package
from worker.process_state import ProcessState

SHIPPED = Path(__file__).parents[3] / "weights" / "fmnist-mlp"


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """The shipped model."""
    return load_package(SHIPPED, LIMITS)


@pytest.fixture
def process_state(tmp_path: Path) -> ProcessState:
    """A worker's state, with nothing in it."""
    folder = tmp_path / "process-state"
    folder.mkdir()
    return ProcessState(folder)
