"""One line in the log when Redis goes away, and one when it is back, whatever fails in between."""

import logging
import time

log = logging.getLogger(__name__)

REMIND_SECONDS = 60


class OutageLog:
    """What one thread sees of Redis."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._since: float | None = None
        self._said = 0.0

    def failed(self, error: Exception) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._said < REMIND_SECONDS:
            return
        self._said = now
        log.warning("%s: waiting for Redis: %s", self._who, error)

    def recovered(self) -> None:
        if self._since is not None:
            log.warning("%s: Redis is back after %.0f s", self._who, time.monotonic() - self._since)
            self._since = None
