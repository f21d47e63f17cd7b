"""Touches the alive file while children are ready, and gives up if none is, or if the worker takes no doorbells."""

import threading
from collections.abc import Callable, Iterable

from jobs.store.for_workers.leases import LeaseStore
from worker.settings import LeasingSettings


class Watchdog:
    """Gives up on a worker without a ready child, or one that is connected but does not react to doorbells.

    Celery's consumers have been seen to do the latter. A worker that works takes a doorbell at once unless its children
    are busy, and then they have leases. If another worker took the doorbell first, none is left for a run to see. Runs
    are counted, not time: in a process that was frozen, time has passed but nothing has waited.
    """

    def __init__(
        self, settings: LeasingSettings, store: LeaseStore, worker_id: str, give_up: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._store = store
        self._worker_id = worker_id
        self._give_up = give_up
        self._doorbell_taken = threading.Event()
        self._idle_runs = 0
        self._was_ready = self._ever_ready = False

    def doorbell_taken(self) -> None:
        """Called in Celery's event loop, beside a run."""
        self._doorbell_taken.set()

    def run_once(self, queues: Iterable[str], *, ready: bool) -> None:
        """`queues` are the models whose doorbells this worker takes; `ready` is whether it has a ready child."""
        if ready and self._settings.alive_file is not None:
            self._settings.alive_file.touch()
        if ready != self._was_ready:
            self._was_ready, self._idle_runs = ready, 0
            self._ever_ready |= ready
        if ready and self._is_active(queues):
            self._doorbell_taken.clear()
            self._idle_runs = 0
            return
        self._idle_runs += 1
        patience = self._settings.watchdog_seconds if self._ever_ready else self._settings.load_seconds_max
        if self._idle_runs * self._settings.reap_seconds > patience:
            self._idle_runs = 0
            reason = "doorbells wait, and this worker has taken none" if ready else "no child has been ready"
            self._give_up(f"{reason} for {patience:g} s")

    def reset(self) -> None:
        """Count idle runs anew: a scan has failed."""
        self._idle_runs = 0

    def _is_active(self, queues: Iterable[str]) -> bool:
        return (
            self._doorbell_taken.is_set()
            or not any(map(self._store.waiting_doorbells, queues))
            or bool(self._store.tokens_of(self._worker_id))
        )
