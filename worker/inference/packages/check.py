"""Checks a model package as a worker does before it takes work, and measures how long its forward pass takes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.model_packages import MANIFEST, check_ref, read_manifest
from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.networks.device import CPU_FLOAT32, Device
from worker.inference.packages.load import load_package

BATCHES = (1, 16, 64)
ROUNDS = 5
SECONDS_MAX = 5.0  # for each batch size


def check(
    folder: Path, limits: ImageLimits, device: Device = CPU_FLOAT32, *, batch_seconds_max: float = 0.05
) -> Iterator[str]:
    """Load and measure a package. Yields a line for each step.

    `batch_seconds_max`: as the setting of a worker.

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
    classifier.measure_pace(seconds_max=batch_seconds_max, clock=device.clock)
    batch, image_seconds = classifier.pace
    measured = f"{1000 * image_seconds:.3f} ms an image, within {batch_seconds_max:g} s"
    yield f"a worker computes batches of {batch}: {measured}"


def _unit_and_clock(device: Device) -> tuple[str, Callable[[], float]]:
    """CPU time of one thread; elapsed time of several, or on a GPU."""
    kind = "of CPU time " if device.clock is time.process_time else ""
    threads = "" if device.is_gpu else f", threads: {torch.get_num_threads()}"
    return f"ms {kind}per image on {device.name}{threads}", device.clock


def _fastest_forward(classifier: Classifier, inputs: NDArray[np.float32], clock: Callable[[], float]) -> float:
    """Seconds of a forward pass: the fastest of several rounds."""
    rounds, deadline = list[float](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) <= ROUNDS and time.monotonic() < deadline):
        started = clock()
        classifier.outputs(inputs)
        rounds.append(clock() - started)
    return min(rounds)
