"""Writes a trained network as a model package."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from jobs.model_manifest import GoldenImage, Manifest, Weights
from jobs.model_packages import MANIFEST
from training.data import CLASSES, LIMITS, Split
from worker.inference.packages.load import load_package

Render = Callable[[NDArray[np.uint8]], bytes]
"""From an image of the data set (uint8, 28 × 28) to the bytes of an image file."""

_GOLDEN_LABELS = (1, 5, 8)  # trouser, sandal, bag: classes that networks do not confuse


def write_package(folder: Path, network: nn.Module, held_out: Split, render: Render, **fields: Any) -> Manifest:
    """Write weights, golden images and a manifest with these `fields`. Returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{fields['name']}.safetensors"
    state = {name: value.contiguous() for name, value in network.eval().state_dict().items()}
    weights.write_bytes(safetensors.torch.save(state))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest = Manifest(
        weights=Weights(file=weights.name, format="safetensors", sha256=sha256),
        classes=CLASSES,
        license="MIT",
        test_set="Fashion-MNIST, 10,000 test images",
        **fields,
    )
    _write_manifest(folder, manifest)
    manifest = manifest.model_copy(update={"golden": _golden_images(folder, held_out, render)})
    _write_manifest(folder, manifest)
    return manifest


def _golden_images(folder: Path, held_out: Split, render: Render) -> list[GoldenImage]:
    """The first held-out image of a few classes, with the results of the package just written."""
    classifier = load_package(folder, LIMITS)
    golden = list[GoldenImage]()
    for label in _GOLDEN_LABELS:
        upload = render(held_out.images[np.flatnonzero(held_out.labels == label)[0]])
        (outcome,) = classifier.classify([upload], [1])
        assert isinstance(outcome, list)
        best = outcome[0]
        file = Path("golden") / f"{CLASSES[best.class_index].lower()}.png"
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(upload)
        name = CLASSES[best.class_index]
        golden.append(GoldenImage(file=str(file), class_name=name, confidence=round(best.confidence, 6)))
    return golden


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")
