"""Measures how fast the queue drains, from the store's counters."""

import math

from jobs.errors import QueueFull

RETRY_AFTER_SECONDS_MAX = 60  # the longest Retry-After
_SMOOTHING_SECONDS = 10  # time constant of the exponential average


class DrainRate:
    """Rates over the last seconds; zero before the second sample."""

    def __init__(self, *, retry_after_seconds: int) -> None:
        self.images_per_second = 0.0
        self.bytes_per_second = 0.0
        self._default_seconds = retry_after_seconds
        self._last: tuple[float, int, int] | None = None

    def sample(self, now: float, images: int, upload_bytes: int) -> None:
        """Record the totals of ended images and of removed upload bytes at time `now`, in seconds."""
        last, self._last = self._last, (now, images, upload_bytes)
        if last is None or now <= last[0]:
            return
        seconds = now - last[0]
        weight = 1.0 if not self.images_per_second else 1 - math.exp(-seconds / _SMOOTHING_SECONDS)
        self.images_per_second += weight * ((images - last[1]) / seconds - self.images_per_second)
        self.bytes_per_second += weight * ((upload_bytes - last[2]) / seconds - self.bytes_per_second)

    def retry_after(self, error: QueueFull) -> int:
        """Whole seconds until there is space for the refused upload, at the current rate."""
        if not error.over_bytes:
            return self._default_seconds
        if self.bytes_per_second <= 0:
            return RETRY_AFTER_SECONDS_MAX
        return max(1, min(RETRY_AFTER_SECONDS_MAX, math.ceil(error.over_bytes / self.bytes_per_second)))
