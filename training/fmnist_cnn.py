"""`weights/fmnist-cnn`: a small residual network, trained on Fashion-MNIST, for pictures as people upload them."""

from pathlib import Path

import torch

from jobs.models import Input, Manifest, Preprocessing
from training.augment import augment
from training.data import CLASSES, load_fashion_mnist, tensors
from training.fit import Compute, Recipe, evaluate, fit
from training.packaging import write_package
from training.renditions import png
from worker.architectures import fmnist_cnn

NAME = "fmnist-cnn"
VERSION = "1"
# Chosen on the held-out images.
RECIPE = Recipe(
    epochs=48,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    label_smoothing=0.05,
    seed=20261127,
    momentum=0.9,
    averaged_steps=1000,
)


def train(package: Path, cache: Path, compute: Compute) -> Manifest:
    """Train, measure on the test images once, write the package, and return its manifest."""
    torch.manual_seed(RECIPE.seed)
    data = load_fashion_mnist(cache)
    network = fmnist_cnn(len(CLASSES)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    log = cache / f"{NAME}.csv"
    kept = fit(network, tensors(data.train), tensors(data.held_out), RECIPE, log, compute=compute, augment=augment)
    return write_package(
        package,
        kept.cpu(),
        data.held_out,
        png,
        name=NAME,
        version=VERSION,
        description="A residual network with 0.66 million parameters. Takes any picture of one piece of clothing.",
        architecture=NAME,
        input=Input(channels=1, height=28, width=28),
        preprocessing=Preprocessing(mode="fmnist"),
        seed=RECIPE.seed,
        test_accuracy=evaluate(kept, *tensors(data.test))[1],
    )
