"""The main process's housekeeping thread: dead children's leases, overdue leases, doorbells, what is due."""

import logging
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from redis.exceptions import RedisError

from jobs.item_codes import ItemCode
from jobs.model_manifest import name_of, natural_sort_key
from jobs.outage_log import OutageLog
from jobs.store.keys import Heartbeat
from jobs.store.leases import WORKER_LOST
from worker.oom import oom_kills
from worker.settings import LeasingSettings
from worker.store import open_store

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100
FAULT_SCANS = 5  # for how many scans' time it stands that a model is not served
OUTDATED_SCANS = 3  # in which a newer version was ready, before its doorbells are left to it
SWEEPING_SHARE = 0.5  # of a scan's period, so that a child's death never waits for a long sweep


class Reaper(threading.Thread):
    def __init__(
        self,
        settings: LeasingSettings,
        models: Sequence[str],
        worker_id: str,
        give_up: Callable[[str], None],
        *,
        load_errors: Callable[[], Mapping[str, str]] = dict,
        listen_to: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        """`load_errors` tells which of the models this worker cannot serve, and why.

        `listen_to` is told at each scan whose doorbells are to be taken: those of what is served, and those of its name
        as long as no newer version is ready.
        """
        super().__init__(name="reaper", daemon=True)
        self._settings = settings
        self._models = models
        self._load_errors = load_errors
        self._listen_to = listen_to
        self._heard = frozenset(models)
        self._outdated = Counter[str]()  # for how many scans there has been a newer version of a name
        self._told = set[str]()
        self._ending = threading.Event()
        self._worker_id = worker_id
        self._give_up = give_up
        self._store = open_store(settings)
        self._deaths = queue.SimpleQueue[tuple[str, ItemCode] | None]()
        self._unreleased = deque[tuple[str, ItemCode]]()
        self._seen = dict[str, str]()
        self._outage = OutageLog("housekeeping: waiting for Redis")
        self._bell_taken = threading.Event()
        self._idle_scans = 0
        self._was_ready = self._ever_ready = False
        self._oom_kills = oom_kills()

    def child_died(self, task_id: str, exception: BaseException) -> None:
        """Called in Celery's event loop when a task ended with its process; ordinary errors are passed over."""
        if isinstance(exception, TimeLimitExceeded):
            self._deaths.put((task_id, ItemCode.TIMEOUT))
        elif isinstance(exception, WorkerLostError):
            killed, self._oom_kills = self._oom_kills, oom_kills()
            code = ItemCode.OUT_OF_MEMORY if self._oom_kills > killed else ItemCode.WORKER_CRASHED
            self._deaths.put((task_id, code))

    def bell_taken(self) -> None:
        """Called in Celery's event loop when this worker has taken a doorbell."""
        self._bell_taken.set()

    def ending(self) -> None:
        """Called when this worker has begun to stop: what its children end is their last."""
        self._ending.set()

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
                self._guarded(self._leave)
                return
            self._unreleased.append(death)
            self._guarded(self._release)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._outage.recovered()
        except RedisError as error:
            self._outage.failed(error)
            self._forget()
        except Exception:  # whatever it is, the next round must come
            log.exception("housekeeping failed")
            self._forget()

    def _forget(self) -> None:
        """What was seen in a row is seen anew: a scan is missing."""
        self._seen = {}
        self._idle_scans = 0

    def _leave(self) -> None:
        self._release()
        self._take_back_presence()
        self._store.show_load_errors(self._worker_id, {}, seconds=0)

    def _take_back_presence(self) -> None:
        for name in set(map(name_of, self._models)):
            self._store.remove_heartbeats(name, self._worker_id)

    def _release(self) -> None:
        """Free the leases of children that died. A death is struck off once Redis has answered for it."""
        while self._unreleased:
            task_id, why = self._unreleased[0]
            for token in self._store.tokens_of(self._worker_id, task_id):
                log.warning("%s: %d chunks of a dead child are ready again", why, self._store.release(token, why))
            self._unreleased.popleft()

    def _scan(self) -> None:
        self._release()
        self._take_back_lapsed()
        if self._ending.is_set():
            self._take_back_presence()
            return
        processes = {name: self._store.ready_processes(name) for name in set(map(name_of, self._models))}
        own = {it.ref for found in processes.values() for it in found if it.worker_id == self._worker_id}
        served = self._served(own)
        self._choose_bells(served, processes)
        ready = bool(own)
        if ready and self._settings.alive_file is not None:
            self._settings.alive_file.touch()
        self._watch(ready=ready)
        self._store.sweep({*self._models, *processes}, seconds=self._settings.reap_seconds * SWEEPING_SHARE)

    def _served(self, ready: set[str]) -> list[str]:
        """The models that this worker serves; of the others it says why it does not.

        One that some child cannot serve, and another is ready to, is served.
        """
        load_errors = self._load_errors()
        if load_errors:
            self._store.show_load_errors(
                self._worker_id, load_errors, seconds=self._settings.reap_seconds * FAULT_SCANS
            )
        for model in load_errors.keys() - self._told:
            log.error("%s is not served: %s", model, load_errors[model])
            self._told.add(model)
        return [model for model in self._models if model not in load_errors or model in ready]

    def _choose_bells(self, served: Sequence[str], processes: Mapping[str, list[Heartbeat]]) -> None:
        """Take the doorbells of what is served; those of a name only where no newer version of it is ready.

        Whoever has the newer version takes them within two scans of its own, and they are taken by both until then.
        """
        wanted = set(served)
        for name in set(map(name_of, served)):
            newest = max((it.ref for it in processes[name]), key=natural_sort_key, default=None)
            outdated = newest is not None and newest not in served
            self._outdated[name] = self._outdated[name] + 1 if outdated else 0
            if not outdated or (name in self._heard and self._outdated[name] < OUTDATED_SCANS):
                wanted.add(name)
        if wanted != self._heard:
            log.info("listens to doorbells of %s", ", ".join(sorted(wanted)))
        self._heard = frozenset(wanted)
        self._listen_to(self._heard)

    def _take_back_lapsed(self) -> None:
        """A lease that two scans in a row saw lapsed at the same end is made ready again."""
        overdue = self._store.overdue(OVERDUE_AT_ONCE)
        for token, end in overdue.items():
            if self._seen.get(token) == end:
                log.warning(
                    "%d chunks of a lapsed lease are ready again", self._store.release(token, WORKER_LOST, seen=end)
                )
        self._seen = overdue

    def _watch(self, *, ready: bool) -> None:
        """Give up where no child is ready, or where this worker is connected but has stopped listening.

        Celery's consumers have been seen to do the latter. A worker that listens takes a bell at once unless its
        children are busy, and then they hold leases. Another worker that took the bell first would have left none for
        the scan to see. Scans are counted, not time: in a process that was frozen time has passed, but nothing waited.
        """
        if ready != self._was_ready:
            self._was_ready, self._idle_scans = ready, 0
            self._ever_ready |= ready
        if ready and (
            self._bell_taken.is_set()
            or not any(map(self._store.waiting_doorbells, self._heard))
            or self._store.tokens_of(self._worker_id)
        ):
            self._bell_taken.clear()
            self._idle_scans = 0
            return
        self._idle_scans += 1
        patience = self._settings.watchdog_seconds if self._ever_ready else self._settings.load_seconds_max
        if self._idle_scans * self._settings.reap_seconds > patience:
            self._idle_scans = 0
            what = "doorbells wait, and this worker has taken none" if ready else "no child has been ready"
            self._give_up(f"{what} for {patience:g} s")
