"""`weights/fmnist-mlp`: the book's 784-1000-10 network, trained on Fashion-MNIST."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jobs.models import MANIFEST, GoldenImage, Input, Manifest, Preprocessing, Weights
from training.data import CLASSES, Split, load_fashion_mnist
from training.fit import Recipe, accuracy, fit
from worker.architectures import fmnist_mlp
from worker.images import ImageLimits
from worker.package import load_package

NAME = "fmnist-mlp"
VERSION = "1"
# Chosen on the held-out images.
RECIPE = Recipe(epochs=20, batch_size=256, learning_rate=1e-3, weight_decay=0.3, label_smoothing=0.0, seed=20261123)
_GOLDEN_LABELS = (1, 5, 8)  # classes that no two networks disagree about: trouser, sandal, bag


def train(package: Path, cache: Path) -> Manifest:
    """Train, measure on the test images once, write the package, and return its manifest."""
    torch.manual_seed(RECIPE.seed)
    data = load_fashion_mnist(cache)
    network = fmnist_mlp(len(CLASSES))
    fit(network, _tensors(data.train), _tensors(data.held_out), RECIPE, cache / f"{NAME}.csv")
    network.eval()

    package.mkdir(parents=True, exist_ok=True)
    weights = package / f"{NAME}.safetensors"
    weights.write_bytes(safetensors.torch.save(network.state_dict()))
    manifest = Manifest(
        name=NAME,
        version=VERSION,
        description="The book's 784-1000-10 network. Expects a dark object on a white background.",
        architecture=NAME,
        weights=Weights(
            file=weights.name, format="safetensors", sha256=hashlib.sha256(weights.read_bytes()).hexdigest()
        ),
        classes=CLASSES,
        input=Input(channels=1, height=28, width=28),
        preprocessing=Preprocessing(mode="book"),
        seed=RECIPE.seed,
        test_accuracy=accuracy(network, *_tensors(data.test)),
        test_set="Fashion-MNIST, 10,000 test images",
        license="MIT",
    )
    _write(package, manifest)
    manifest = manifest.model_copy(update={"golden": _golden(package, data.held_out)})
    _write(package, manifest)
    return manifest


def product_shot(image: NDArray[np.uint8]) -> bytes:
    """A Fashion-MNIST image (uint8, 28 × 28) as a PNG on white, which is what the book's preprocessing expects."""
    file = BytesIO()
    Image.fromarray(255 - image).save(file, "PNG", optimize=True)
    return file.getvalue()


def _golden(package: Path, held_out: Split) -> list[GoldenImage]:
    """The first held-out image of a few plain classes, with what the package just written says of it."""
    classifier = load_package(package, ImageLimits(pixels_max=10_000, side_pixels_max=100, frames_max=1, scans_max=1))
    golden = list[GoldenImage]()
    for label in _GOLDEN_LABELS:
        upload = product_shot(held_out.images[np.flatnonzero(held_out.labels == label)[0]])
        (outcome,) = classifier.classify([upload], [1])
        assert isinstance(outcome, list)
        file = Path("golden") / f"{CLASSES[outcome[0].class_index].lower()}.png"
        (package / file).parent.mkdir(exist_ok=True)
        (package / file).write_bytes(upload)
        golden.append(
            GoldenImage(
                file=str(file),
                class_name=CLASSES[outcome[0].class_index],
                confidence=round(outcome[0].confidence, 6),
            )
        )
    return golden


def _write(package: Path, manifest: Manifest) -> None:
    (package / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def _tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Inputs: float32, N × 784, in [0, 1]; labels: int64, N."""
    inputs = torch.from_numpy(split.images.reshape(len(split.images), -1).astype(np.float32) / 255)
    return inputs, torch.from_numpy(split.labels.astype(np.int64))
