"""The size of batch from which on an image gets no cheaper, by measurement (docs/decisions/0043)."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.model_manifest import Input
from worker.inference.out_of_memory import is_out_of_memory

BATCH_MAX = 256
ROUNDS = 3
MEASURE_SECONDS_MAX = 0.5  # larger batches are not tried after this time, without the first pass of each batch
NO_CHEAPER = 0.97  # a batch counts as cheaper if an image takes less than this part of the time
DEARER = 1.1  # larger batches are not tried once an image takes this many times the least


class Pace(NamedTuple):
    """How fast a process computes a network."""

    batch: int
    """Images of one forward pass: in larger batches an image is no cheaper, or waits too long."""
    image_seconds: float
    """The time of an image in such a batch, without decoding; 0 if it was not measured."""


UNMEASURED = Pace(64, 0)


def measured_pace(
    forward: Callable[[NDArray[np.float32]], object],
    input_spec: Input,
    *,
    seconds_max: float,
    clock: Callable[[], float] = time.process_time,
) -> Pace:
    """Try batches of 1, 2, 4 … random images, none that would take longer than `seconds_max`; 1 is always allowed.

    `forward` takes float32, N × channels × height × width. `clock` should be of CPU time where only the CPU computes:
    other processes disturb it less.
    """
    rng, left = np.random.default_rng(0), MEASURE_SECONDS_MAX
    size = input_spec.height, input_spec.width, input_spec.channels
    found = list[Pace]()
    batch = 1
    while batch <= BATCH_MAX:
        images = rng.random((batch, *size), np.float32).transpose(0, 3, 1, 2)  # the layout of decoded images
        try:
            if batch > 1:  # one image has been tried when the package was loaded
                forward(images)  # it may compile kernels, which takes a GPU longer than the measurement
            began = time.monotonic()
            found.append(Pace(batch, _seconds(forward, images, clock, until=began + left) / batch))
            left -= time.monotonic() - began
        except Exception as error:
            if batch > 1 and (isinstance(error, MemoryError) or is_out_of_memory(error)):
                break
            raise
        least = min(it.image_seconds for it in found)
        if left < 0 or found[-1].image_seconds > DEARER * least or 2 * batch * least > seconds_max:
            break
        batch *= 2
    allowed = [it for it in found if it.batch == 1 or it.batch * it.image_seconds <= seconds_max]
    least = min(it.image_seconds for it in allowed)
    return next(it for it in allowed if NO_CHEAPER * it.image_seconds <= least)


def _seconds(
    forward: Callable[[NDArray[np.float32]], object],
    images: NDArray[np.float32],
    clock: Callable[[], float],
    *,
    until: float,
) -> float:
    """Of one forward pass: the fastest of several."""
    rounds = list[float]()
    for _ in range(ROUNDS):
        started = clock()
        forward(images)
        rounds.append(clock() - started)
        if time.monotonic() > until:
            break
    return min(rounds)
