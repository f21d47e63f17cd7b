"""Checks a model package as a worker does before it takes work, and measures how long its forward pass takes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.model_packages import MANIFEST, check_ref, read_manifest
from worker.inference.classifier import Classifier
from worker.inference.images.decode import ImageLimits
from worker.inference.networks.device import CPU_FLOAT32, Device
from worker.inference.packages.load import load_package

BATCHES = (1, 16, 64)
ROUNDS = 5
SECONDS_MAX = 5.0  # for each batch size


def check(folder: Path, limits: ImageLimits, device: Device = CPU_FLOAT32) -> Iterator[str]:
    """Load and measure a package. Yields a line for each step.

    Raises:
        ModelPackageError: a worker would not serve this package; one line with the reason.
    """
    manifest = read_manifest(folder)
    yield f"{MANIFEST}: valid; {manifest.weights.format}, {len(manifest.classes)} classes"
    classifier = load_package(folder, limits, device)
    check_ref(folder, classifier.card, folder.absolute().name)
    yield f"{classifier.card.ref}: weights loaded, sha256 {classifier.card.sha256}"
    yield f"{len(manifest.golden)} golden images{': results as in the manifest' if manifest.golden else ''}"
    unit, clock = _unit_and_clock(device)
    input_spec = classifier.card.input
    for batch in BATCHES:
        inputs = torch.rand(batch, input_spec.channels, input_spec.height, input_spec.width).numpy()
        seconds = _fastest_forward(classifier, inputs, clock)
        yield f"forward pass of {batch}: {1000 * seconds / batch:.3f} {unit}"


def _unit_and_clock(device: Device) -> tuple[str, Callable[[], float]]:
    """CPU time on a CPU; on a GPU, where it has no meaning, elapsed time."""
    if device.is_gpu:
        return f"ms per image on {device.name}", time.perf_counter
    return f"ms of CPU time per image on {device.name}, threads: {torch.get_num_threads()}", time.process_time


def _fastest_forward(classifier: Classifier, inputs: NDArray[np.float32], clock: Callable[[], float]) -> float:
    """Seconds of a forward pass: the fastest of several rounds."""
    rounds, deadline = list[float](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) <= ROUNDS and time.monotonic() < deadline):
        started = clock()
        classifier.outputs(inputs)
        rounds.append(clock() - started)
    return min(rounds)
