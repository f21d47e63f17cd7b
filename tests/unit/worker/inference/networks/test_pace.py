from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.model_manifest import Input
from worker.inference.networks.pace import BATCH_MAX, Pace, measured_pace

INPUT = Input(channels=3, height=4, width=6)


class FakeNetwork:
    """Its forward passes take what a function of the batch says, by a clock of its own."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now = 0.0
        self.batches = list[int]()
        self._seconds = seconds

    def forward(self, images: NDArray[np.float32]) -> None:
        assert images.shape[1:] == (3, 4, 6)
        self.batches.append(len(images))
        self.now += self._seconds(len(images))

    def pace(self, seconds_max: float = 1) -> Pace:
        return measured_pace(self.forward, INPUT, seconds_max=seconds_max, clock=lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        (lambda images: 0.01 * images, 1),
        (lambda images: 0.001 + 0.00001 * images, 256),
        (lambda images: 0.01 * images + (0.004 if images == 1 else 0), 2),
        (lambda images: 0.001 * images * (2 if images < 4 else 1 if images < 16 else 3), 4),
    ],
    ids=["never cheaper", "ever cheaper", "cheaper in twos", "dearer from sixteen on"],
)
def test_the_batch_is_the_smallest_from_which_on_an_image_gets_no_cheaper(
    seconds: Callable[[int], float], batch: int
) -> None:
    pace = FakeNetwork(seconds).pace()
    assert pace.batch == batch
    assert pace.image_seconds == pytest.approx(seconds(batch) / batch)


def test_no_batch_takes_longer_than_allowed() -> None:
    def seconds(images: int) -> float:
        return 0.01 + 0.002 * images

    network = FakeNetwork(seconds)
    assert network.pace(0.05).batch == 8
    assert max(network.batches) == 8, "not even to measure it"
    assert FakeNetwork(seconds).pace(0.001).batch == 1, "an image alone is always allowed"


def test_batches_of_which_an_image_is_dearer_are_not_tried_further() -> None:
    network = FakeNetwork(lambda images: 0.0001 * images * images)
    assert network.pace().batch == 1
    assert max(network.batches) == 4


def test_one_slow_round_does_not_count() -> None:
    network = FakeNetwork(lambda images: 0.001 * images)
    network._seconds = lambda images: 5.0 if len(network.batches) % 3 == 0 else 0.001 + 0.001 * images
    assert network.pace(0.1).batch == 32


@pytest.mark.parametrize("disturbed", [1, 2, 4, 8])
def test_a_batch_that_is_slow_at_one_moment_is_timed_at_another(disturbed: int) -> None:
    """On a busy machine, all passes that are timed at once may be slow."""
    network = FakeNetwork(lambda images: 0.0001 + 0.0001 * images)
    undisturbed, slow_passes = network._seconds, 3

    def seconds(images: int) -> float:
        slow = images == disturbed and network.batches.count(images) <= slow_passes + (images > 1)
        return undisturbed(images) * (10 if slow else 1)

    network._seconds = seconds
    assert network.pace(0.01) == Pace(32, pytest.approx(0.0033 / 32))


def test_a_batch_that_does_not_fit_memory_is_not_chosen() -> None:
    def seconds(images: int) -> float:
        if images > 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return 0.01

    assert FakeNetwork(seconds).pace().batch == 8


def test_an_error_of_the_network_is_raised() -> None:
    def seconds(_: int) -> float:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        FakeNetwork(seconds).pace()


def test_the_measurement_ends_in_time_with_a_slow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FakeNetwork(lambda images: 3.0 * images)
    monkeypatch.setattr("time.monotonic", lambda: network.now)
    assert network.pace(3600) == Pace(1, 3.0)
    assert network.batches == [1]


def test_what_the_first_pass_of_a_batch_takes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU compiles and records in it."""
    network = FakeNetwork(lambda images: 0.001 + 0.00001 * images + (2 if images > 1 and is_first() else 0))
    monkeypatch.setattr("time.monotonic", lambda: network.now)

    def is_first() -> bool:
        return network.batches.count(network.batches[-1]) == 1

    assert network.pace().batch == BATCH_MAX == 256
