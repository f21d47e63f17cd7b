"""The thread that renews the leases that its process holds, and shows that the process is ready for more."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from jobs.outage_log import OutageLog
from jobs.store.keys import Heartbeat
from worker.process_state import is_stopping
from worker.settings import LeasingSettings
from worker.store import open_store

log = logging.getLogger(__name__)


class LeaseRenewer(threading.Thread):
    def __init__(self, settings: LeasingSettings, model: str, heartbeat: Heartbeat) -> None:
        super().__init__(name="lease keeper", daemon=True)
        self._settings = settings
        self._presence = (model, heartbeat)
        self._store = open_store(settings)
        self._held = dict[str, float]()
        self._stopped = threading.Event()

    @contextmanager
    def renewing(self, token: str) -> Iterator[None]:
        """Renew this lease until the end of the block, but no longer than a task may take."""
        self._held[token] = time.monotonic()
        try:
            yield
        finally:
            del self._held[token]

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        every = self._settings.renew_seconds
        parent = os.getppid()
        outage = OutageLog(f"lease renewer of {os.getpid()}: waiting for Redis")
        while True:
            renewable, killed = self._renewable(), os.getppid() != parent
            if killed and not renewable:  # with its work done: or it hangs
                os._exit(1)
            try:
                shows = not (killed or is_stopping())
                first, *others = renewable or [""]
                if shows:
                    self._store.heartbeat(*self._presence, seconds=every * 3 + 1, token=first)
                for token in others if shows else renewable:
                    self._store.renew(token)
                outage.recovered()
            except RedisError as error:
                outage.failed(error)
            except Exception:  # whatever it is, the next round must come
                log.exception("cannot renew")
            if self._stopped.wait(every):
                return

    def _renewable(self) -> list[str]:
        """The leases to renew. A task past its time limit is about to be killed."""
        until = time.monotonic() - self._settings.task_time_limit_seconds
        return [token for token, since in self._held.copy().items() if since > until]
