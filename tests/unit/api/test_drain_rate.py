import pytest

from api.drain_rate import DrainRate
from jobs.errors import QueueFull


@pytest.fixture
def drain() -> DrainRate:
    return DrainRate(retry_after_seconds=2)


def test_without_a_drain_rate_the_retry_after_is_that_of_the_settings(drain: DrainRate) -> None:
    assert drain.retry_after(QueueFull()) == 2
    assert drain.retry_after(QueueFull(over_bytes=1)) == 60


@pytest.mark.parametrize(("over", "seconds"), [(1, 1), (1_000_000, 1), (4_500_000, 5), (10**9, 60)])
def test_the_retry_after_follows_from_the_drain_rate(drain: DrainRate, over: int, seconds: int) -> None:
    for second in range(5):
        drain.sample(second, images=100 * second, upload_bytes=1_000_000 * second)
    assert drain.images_per_second == pytest.approx(100)
    assert drain.retry_after(QueueFull(over_bytes=over)) == seconds


def test_a_rate_follows_recent_samples_and_forgets_old_ones(drain: DrainRate) -> None:
    for second in range(10):
        drain.sample(second, images=100 * second, upload_bytes=0)
    for second in range(10, 60):
        drain.sample(second, images=900 + 10 * (second - 9), upload_bytes=0)
    assert drain.images_per_second == pytest.approx(10, rel=0.1)


def test_a_clock_that_is_set_back_gives_no_rate(drain: DrainRate) -> None:
    drain.sample(10, images=0, upload_bytes=0)
    drain.sample(5, images=100, upload_bytes=0)
    assert drain.images_per_second == 0
