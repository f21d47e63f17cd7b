from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.stack import Stack
from training.data import FashionMnist, load_fashion_mnist
from training.fmnist_mlp import png_on_white


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A Valkey of the test's own, with which the test can start an API and workers."""
    with Stack(tmp_path) as stack:
        yield stack


@pytest.fixture(scope="session")
def fashion_mnist() -> FashionMnist:
    """The data set: Debian's package dataset-fashion-mnist, or a download from its publisher."""
    return load_fashion_mnist(ROOT / "data" / "training")


@pytest.fixture(scope="session")
def test_images(fashion_mnist: FashionMnist) -> list[bytes]:
    """The first 2,000 test images as PNG on white."""
    return [png_on_white(image) for image in fashion_mnist.test.images[:2000]]
