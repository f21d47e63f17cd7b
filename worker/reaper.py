"""The main process's housekeeping thread: dead children's leases, overdue leases, doorbells, what is due."""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from functools import partial

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from redis.exceptions import RedisError

from jobs.errors import ItemCode
from jobs.leases import WORKER_LOST
from worker.settings import WorkerSettings
from worker.store import open_store

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100


class Reaper(threading.Thread):
    def __init__(self, settings: WorkerSettings, model: str, boot: str) -> None:
        super().__init__(name="reaper", daemon=True)
        self._settings = settings
        self._model = model
        self._boot = boot
        self._store = open_store(settings)
        self._deaths = queue.SimpleQueue[tuple[str, ItemCode] | None]()
        self._seen = dict[str, str]()

    def child_died(self, task_id: str, exception: BaseException) -> None:
        """Called in Celery's event loop when a task ended with its process; ordinary errors are passed over."""
        if isinstance(exception, TimeLimitExceeded):
            self._deaths.put((task_id, ItemCode.TIMEOUT))
        elif isinstance(exception, WorkerLostError):
            self._deaths.put((task_id, ItemCode.WORKER_CRASHED))

    def stop(self) -> None:
        """Take back the presence of this worker's children, and end."""
        self._deaths.put(None)
        self.join(timeout=self._settings.store_timeout_seconds)

    def run(self) -> None:
        scan_at = 0.0
        while True:
            try:
                death = self._deaths.get(timeout=max(0.0, scan_at - time.monotonic()))
            except queue.Empty:
                # Jitter, so that the reapers of several workers do not scan in step.
                scan_at = time.monotonic() + self._settings.reap_seconds * random.uniform(0.9, 1.1)
                self._guarded(self._scan)
                continue
            if death is None:
                self._guarded(partial(self._store.leave, self._model, f"{self._boot}|"))
                return
            self._guarded(partial(self._release, *death))

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except RedisError as error:
            log.warning("housekeeping was put off: %s", error)
            self._seen = {}
        except Exception:  # whatever it is, the next round must come
            log.exception("housekeeping failed")
            self._seen = {}

    def _release(self, task_id: str, why: ItemCode) -> None:
        for token in self._store.tokens(f"{self._boot}|{task_id}|"):
            log.warning("%s: %d chunks of a dead child are ready again", why, self._store.lapse(token, why))

    def _scan(self) -> None:
        """A lease that two scans in a row saw lapsed at the same end is made ready again."""
        overdue = self._store.overdue(OVERDUE_AT_ONCE)
        for token, end in overdue.items():
            if self._seen.get(token) == end:
                log.warning(
                    "%d chunks of a lapsed lease are ready again", self._store.lapse(token, WORKER_LOST, seen=end)
                )
        self._seen = overdue
        self._store.sweep([self._model], seconds=0.5)
        if self._settings.alive_file is not None and self._store.ready_processes(self._model, f"{self._boot}|"):
            self._settings.alive_file.touch()
