"""The thread that renews the leases of its process and sends the process's heartbeats."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from jobs.logs.outage_log import OutageLog
from jobs.store.keys import Heartbeat
from worker.process_state import ProcessState
from worker.settings import LeasingSettings
from worker.store import open_lease_store

log = logging.getLogger(__name__)


class LeaseRenewer(threading.Thread):
    """One for each process, whatever number of models it serves; has a store client of its own."""

    def __init__(
        self, settings: LeasingSettings, served: Iterable[tuple[str, str]], worker_id: str, process_state: ProcessState
    ) -> None:
        """`served` are the models of this process, each as its name and its `name@version`."""
        super().__init__(name="lease renewer", daemon=True)
        self._settings = settings
        self._heartbeats = [(name, Heartbeat(ref, worker_id, os.getpid())) for name, ref in served]
        self._process_state = process_state
        self._store = open_lease_store(settings)
        self._renewed_since = dict[str, float]()
        """Each leased token, with the time from which it is renewed."""
        self._stopped = threading.Event()

    @contextmanager
    def renewing(self, token: str) -> Iterator[None]:
        """Renew this lease until the end of the block, but no longer than a task may take."""
        self._renewed_since[token] = time.monotonic()
        try:
            yield
        finally:
            del self._renewed_since[token]

    def stop(self) -> None:
        """End the thread, and close its store client."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        self._store.close()

    def run(self) -> None:
        parent = os.getppid()
        outage = OutageLog(f"lease renewer of {os.getpid()}: waiting for Redis")
        while True:
            tokens, orphaned = self._renewable(), os.getppid() != parent
            if orphaned and not tokens:  # its work is done, or it hangs
                os._exit(1)
            try:
                heartbeats = [] if orphaned or self._process_state.read_stopping() else self._heartbeats
                self._store.heartbeat(heartbeats, seconds=self._settings.renew_seconds * 3 + 1, tokens=tokens)
                outage.recovered()
            except RedisError as error:
                outage.failed(error)
            except Exception:  # an unexpected error must not end the renewals
                log.exception("cannot renew leases")
            if self._stopped.wait(self._settings.renew_seconds):
                return

    def _renewable(self) -> list[str]:
        """The leases to renew: not that of a task past its time limit, whose process is about to be killed."""
        earliest = time.monotonic() - self._settings.task_time_limit_seconds
        return [token for token, since in self._renewed_since.copy().items() if since > earliest]
