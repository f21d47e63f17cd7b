"""The size of batch from which on an image gets no cheaper, by measurement (docs/decisions/0043)."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.model_manifest import Input
from worker.inference.out_of_memory import is_out_of_memory

BATCH_MAX = 256
SWEEPS_MAX = 30  # over all batches: on a busy machine what is timed at one moment may be several times slower
ROUNDS = 2  # of a batch in one sweep
MEASURE_SECONDS_MAX = 0.3  # by the clock of the measurement, for all sweeps
MEASURE_WALL_SECONDS_MAX = 2.0
NO_CHEAPER = 0.97  # a batch counts as cheaper if an image takes less than this part of the time
DEARER = 2  # a sweep ends once an image takes this many times the least


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
    passes = _Passes(forward, input_spec, clock)
    batch_max, sweeps = BATCH_MAX, 0
    while sweeps < SWEEPS_MAX and not passes.is_late():
        sweeps, batch = sweeps + 1, 1
        while batch <= batch_max:
            try:
                passes.time(batch)
            except Exception as error:
                if batch > 1 and (isinstance(error, MemoryError) or is_out_of_memory(error)):
                    passes.seconds.pop(batch, None)
                    batch_max = batch // 2
                    break
                raise
            least = min(map(passes.an_image, passes.seconds))
            if passes.is_late() or passes.an_image(batch) > DEARER * least or 2 * batch * least > seconds_max:
                break
            batch *= 2
    allowed = [batch for batch, seconds in passes.seconds.items() if batch == 1 or seconds <= seconds_max]
    least = min(map(passes.an_image, allowed))
    batch = next(batch for batch in allowed if NO_CHEAPER * passes.an_image(batch) <= least)
    return Pace(batch, passes.an_image(batch))


class _Passes:
    """Forward passes of random images, by the size of their batch."""

    def __init__(
        self, forward: Callable[[NDArray[np.float32]], object], input_spec: Input, clock: Callable[[], float]
    ) -> None:
        self.seconds = dict[int, float]()
        """Of the fastest pass, by batch, the smallest first: what disturbs a pass makes it slower, never faster."""
        self._forward, self._clock = forward, clock
        self._size = input_spec.height, input_spec.width, input_spec.channels
        self._random = np.random.default_rng(0)
        self._images = dict[int, NDArray[np.float32]]()
        self._left = MEASURE_SECONDS_MAX
        self._until = time.monotonic() + MEASURE_WALL_SECONDS_MAX

    def time(self, batch: int) -> None:
        images = self._images.get(batch)
        if images is None:
            images = self._random.random((batch, *self._size), np.float32).transpose(0, 3, 1, 2)  # as decoded images
            self._images[batch] = images
            if batch > 1:  # one image has been tried when the package was loaded
                began = time.monotonic()
                self._forward(images)  # it may compile kernels, which takes a GPU longer than the measurement
                self._until += time.monotonic() - began
        for _ in range(ROUNDS):
            started = self._clock()
            self._forward(images)
            self.seconds[batch] = min(self._clock() - started, self.seconds.get(batch, math.inf))
            self._left -= self.seconds[batch]  # what only a disturbance took does not count
            if time.monotonic() > self._until:
                break

    def an_image(self, batch: int) -> float:
        return self.seconds[batch] / batch

    def is_late(self) -> bool:
        return self._left <= 0 or time.monotonic() > self._until
