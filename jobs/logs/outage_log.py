"""One log line when a dependency fails, a reminder each minute, and one line when it works again."""

import logging
import time

from jobs.errors import one_line

log = logging.getLogger(__name__)

REMIND_SECONDS = 60


class OutageLog:
    """The outages that one thread, or one event loop, sees of one dependency."""

    def __init__(self, problem: str, *, level: int = logging.WARNING) -> None:
        """`problem` starts each line, for example "lease renewer: waiting for Redis"; `level` is that of errors."""
        self._problem = problem
        self._level = level
        self._since: float | None = None
        self._last_logged = 0.0

    def failed(self, error: Exception) -> None:
        """Log the error if it is the first of an outage, or if the last line is `REMIND_SECONDS` old."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._last_logged < REMIND_SECONDS:
            return
        self._last_logged = now
        log.log(self._level, "%s: %s", self._problem, one_line(error))

    def recovered(self) -> None:
        """Log how long the outage took; nothing if there was none."""
        if self._since is not None:
            log.warning("%s: over after %.0f s", self._problem, time.monotonic() - self._since)
            self._since = None
