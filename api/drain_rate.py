"""How fast the queue drains, told from the store's own counters."""

import math

from jobs.errors import QueueFull

_MEMORY_SECONDS = 10  # what is older counts for little


class DrainRate:
    """Rates over the last seconds. Zero until two samples are there."""

    def __init__(self, *, retry_after_seconds: int, retry_after_seconds_max: int) -> None:
        self.images_per_second = 0.0
        self.bytes_per_second = 0.0
        self._unknown_seconds = retry_after_seconds
        self._seconds_max = retry_after_seconds_max
        self._last: tuple[float, int, int] | None = None

    def sample(self, now: float, images: int, upload_bytes: int) -> None:
        """Note the totals of images that have ended and of upload bytes that have gone, at a time in seconds."""
        last, self._last = self._last, (now, images, upload_bytes)
        if last is None or now <= last[0]:
            return
        seconds = now - last[0]
        share = 1.0 if not self.images_per_second else 1 - math.exp(-seconds / _MEMORY_SECONDS)
        self.images_per_second += share * ((images - last[1]) / seconds - self.images_per_second)
        self.bytes_per_second += share * ((upload_bytes - last[2]) / seconds - self.bytes_per_second)

    def retry_after(self, error: QueueFull) -> int:
        """Whole seconds until there is room, by what drains now."""
        if not error.over_bytes:
            return self._unknown_seconds
        if self.bytes_per_second <= 0:
            return self._seconds_max
        return max(1, min(self._seconds_max, math.ceil(error.over_bytes / self.bytes_per_second)))
