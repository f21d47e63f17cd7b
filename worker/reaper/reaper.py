"""The reaper thread: runs all duties at each scan, and releases a dead child's leases without waiting for the next."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from redis.exceptions import RedisError

from jobs.errors import ModelPackageError
from jobs.logs.outage_log import OutageLog
from jobs.store.for_workers.leases import LeaseStore
from worker.reaper.dead_children import DeadChildren
from worker.reaper.heartbeats import Heartbeats
from worker.reaper.lapsed_leases import LapsedLeases
from worker.reaper.load_error_report import LoadErrorReport
from worker.reaper.queue_selection import QueueSelection
from worker.reaper.silent_children import SilentChildren
from worker.reaper.sweep import Sweep
from worker.reaper.watchdog import Watchdog
from worker.settings import LeasingSettings
from worker.store import open_lease_store

log = logging.getLogger(__name__)

SUSPECT_SCANS = 5  # beyond those after which its worker has killed a silent child, a lapsed suspect is left to it
LOAD_ERROR_SCANS = 5  # for how many scans' time a reported load error stays in Redis
SWEEP_SHARE = 0.5  # of the time between two scans, so that a dead child never waits for a long sweep


class Reaper(threading.Thread):
    def __init__(
        self,
        settings: LeasingSettings,
        models: Sequence[str],
        worker_id: str,
        give_up: Callable[[str], None],
        *,
        load_errors: Callable[[], Mapping[str, str]] = dict,
        consume: Callable[[frozenset[str]], None] = lambda _: None,
        kill_child: Callable[[int], None] = lambda _: None,
        restore: Callable[[LeaseStore], None] = lambda _: None,
        store: LeaseStore | None = None,
    ) -> None:
        """`load_errors` returns which of the models this worker cannot serve, with the reasons.

        `consume` is called at each scan with the models whose doorbells this worker is to take. `kill_child` is called
        with the pid of a child that sends no heartbeats any more. `restore` is called at each scan, to write again what
        a worker writes when it starts, and Redis may have lost.
        """
        super().__init__(name="reaper", daemon=True)
        self._settings = settings
        store = store or open_lease_store(settings)
        self._dead_children = DeadChildren(store, worker_id)
        # As long as the lease renewer of a child may wait for a reply, then for its next turn.
        silent = settings.store_timeout_seconds + 2 * settings.renew_seconds + settings.reap_seconds
        silent_runs = math.ceil(silent / settings.reap_seconds)
        self._restore = restore
        self._give_up = give_up
        self._worker_id = worker_id
        self._store = store
        self._silent_children = SilentChildren(store, worker_id, kill_child, runs_max=silent_runs)
        self._lapsed_leases = LapsedLeases(store, suspect_runs=silent_runs + SUSPECT_SCANS)
        self._heartbeats = Heartbeats(store, models, worker_id)
        self._load_error_report = LoadErrorReport(
            store, models, worker_id, load_errors, seconds=settings.reap_seconds * LOAD_ERROR_SCANS
        )
        self._queue_selection = QueueSelection(models, consume)
        self._watchdog = Watchdog(settings, store, worker_id, give_up)
        self._sweep = Sweep(store, models, seconds=settings.reap_seconds * SWEEP_SHARE)
        self._outage = OutageLog("housekeeping: waiting for Redis")
        self._woken = threading.Event()
        self._worker_is_stopping = threading.Event()
        self._stopped = threading.Event()

    # -- called in Celery's event loop

    def child_died(self, task_id: str, exception: BaseException) -> None:
        """A task ended with this exception; one that did not end its process is ignored."""
        if self._dead_children.add(task_id, exception):
            self._woken.set()

    def doorbell_taken(self) -> None:
        self._watchdog.doorbell_taken()

    def worker_is_stopping(self) -> None:
        """From now on scans only release leases: children finish their last tasks."""
        self._worker_is_stopping.set()

    def stop(self) -> None:
        """Remove the heartbeats of this worker's children, and end the thread."""
        self._stopped.set()
        self._woken.set()
        self.join(timeout=self._settings.store_timeout_seconds)

    # -- the thread

    def run(self) -> None:
        scan_at = 0.0
        while True:
            woken = self._woken.wait(max(0.0, scan_at - time.monotonic()))
            if self._stopped.is_set():
                self._attempt(self._leave)
                return
            if woken:
                self._woken.clear()
                self._attempt(self._dead_children.run_once)
            else:
                # Jitter, so that the reapers of several workers do not scan in step.
                scan_at = time.monotonic() + self._settings.reap_seconds * random.uniform(0.9, 1.1)
                self._attempt(self.run_once)

    def run_once(self) -> None:
        """One scan."""
        self._dead_children.run_once()
        self._lapsed_leases.run_once()
        if self._worker_is_stopping.is_set():
            self._heartbeats.remove()
            return
        try:
            self._restore(self._store)
        except ModelPackageError as error:  # as at a start
            self._give_up(str(error))
        self._store.show_alive(self._worker_id, seconds=self._settings.reap_seconds * 3 + 1)
        processes = self._heartbeats.read()
        self._silent_children.run_once(processes.own_heartbeats)
        served = self._load_error_report.run_once(processes.own)
        self._queue_selection.run_once(served, processes.by_name)
        self._watchdog.run_once(self._queue_selection.selected, ready=bool(processes.own))
        self._sweep.run_once()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._outage.recovered()
        except RedisError as error:
            self._outage.failed(error)
            self._reset()
        except Exception:  # an unexpected error must not end the thread
            log.exception("housekeeping failed")
            self._reset()

    def _reset(self) -> None:
        self._lapsed_leases.reset()
        self._silent_children.reset()
        self._watchdog.reset()

    def _leave(self) -> None:
        self._dead_children.run_once()
        self._heartbeats.remove()
        self._load_error_report.remove()
