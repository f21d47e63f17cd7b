"""How fast the queue drains, told from the store's own counters."""

import math

from jobs.errors import QueueFull

RETRY_AFTER_SECONDS_MAX = 60  # the longest Retry-After
_MEMORY_SECONDS = 10  # what is older counts for little


class DrainRate:
    """Rates over the last seconds. Zero until two samples are there."""

    def __init__(self, *, retry_after_seconds: int) -> None:
        self.images_per_second = 0.0
        self.bytes_per_second = 0.0
        self._unknown_seconds = retry_after_seconds
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
            return RETRY_AFTER_SECONDS_MAX
        return max(1, min(RETRY_AFTER_SECONDS_MAX, math.ceil(error.over_bytes / self.bytes_per_second)))
