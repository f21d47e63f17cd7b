"""`weights/fmnist-mlp`: the book's 784-1000-10 network, trained on Fashion-MNIST."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input, Manifest, Preprocessing
from training.data import CLASSES, load_fashion_mnist, tensors
from training.fit import Recipe, evaluate, fit
from training.packaging import write_package
from worker.inference.networks.architectures import fmnist_mlp
from worker.inference.networks.device import Device

NAME = "fmnist-mlp"
VERSION = "1"
# Chosen on the held-out images.
RECIPE = Recipe(epochs=20, batch_size=256, learning_rate=1e-3, weight_decay=0.3, label_smoothing=0.0, seed=20261123)


def train(package: Path, cache: Path, _docs: Path, _device: Device) -> Manifest:
    """Train, measure on the test images once, and write the package. Returns its manifest."""
    torch.manual_seed(RECIPE.seed)
    data = load_fashion_mnist(cache)
    network = fmnist_mlp(len(CLASSES))
    trained = fit(network, tensors(data.train), tensors(data.held_out), RECIPE, cache / f"{NAME}.csv")
    return write_package(
        package,
        trained,
        data.held_out,
        png_on_white,
        name=NAME,
        version=VERSION,
        description="The book's 784-1000-10 network. Expects a dark object on a white background.",
        architecture=NAME,
        input=Input(channels=1, height=28, width=28),
        preprocessing=Preprocessing(mode="book"),
        seed=RECIPE.seed,
        test_accuracy=evaluate(trained, *tensors(data.test))[1],
    )


def png_on_white(image: NDArray[np.uint8]) -> bytes:
    """A Fashion-MNIST image (uint8, 28 × 28) as a PNG, dark on white, as the book's preprocessing expects."""
    file = BytesIO()
    Image.fromarray(255 - image).save(file, "PNG", optimize=True)
    return file.getvalue()
