"""The main process's housekeeping thread: dead children's leases, overdue leases, doorbells, what is due."""

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from redis.exceptions import RedisError

from jobs.errors import ItemCode
from jobs.leases import WORKER_LOST
from jobs.models import name_of, natural
from worker.oom import oom_kills
from worker.outage import Outage
from worker.settings import LeasingSettings
from worker.store import open_store

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100
FAULT_SCANS = 5  # for how many scans' time it stands that a model is not served
SWEEPING_SHARE = 0.5  # of a scan's period, so that a child's death never waits for a long sweep


class Reaper(threading.Thread):
    def __init__(
        self,
        settings: LeasingSettings,
        models: Sequence[str],
        boot: str,
        give_up: Callable[[str], None],
        *,
        faults: Callable[[], Mapping[str, str]] = dict,
        take_bells: Callable[[str], None] = lambda _: None,
        leave_bells: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`faults` tells which of the models this worker cannot serve, and why; it then leaves their doorbells.

        It has begun with those of `models` alone; those of their names it takes as long as it has the newest version.
        """
        super().__init__(name="reaper", daemon=True)
        self._settings = settings
        self._models = models
        self._faults = faults
        self._take_bells = take_bells
        self._leave_bells = leave_bells
        self._taken = set(models)
        self._told = set[str]()
        self._boot = boot
        self._give_up = give_up
        self._store = open_store(settings)
        self._deaths = queue.SimpleQueue[tuple[str, ItemCode] | None]()
        self._unreleased = deque[tuple[str, ItemCode]]()
        self._seen = dict[str, str]()
        self._outage = Outage("housekeeping")
        self._bell_taken = threading.Event()
        self._idle_scans = 0
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
            self._outage.worked()
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
        for name in set(map(name_of, self._models)):
            self._store.leave(name, f"{self._boot}|")
        self._store.show_faults(self._boot, {}, seconds=0)

    def _release(self) -> None:
        """Free the leases of children that died. A death is struck off once Redis has answered for it."""
        while self._unreleased:
            task_id, why = self._unreleased[0]
            for token in self._store.tokens(f"{self._boot}|{task_id}|"):
                log.warning("%s: %d chunks of a dead child are ready again", why, self._store.lapse(token, why))
            self._unreleased.popleft()

    def _scan(self) -> None:
        self._release()
        self._take_back_lapsed()
        served = self._served()
        processes = {name: self._store.ready_processes(name) for name in set(map(name_of, served))}
        self._choose_bells(served, processes)
        ready = any(it.startswith(f"{self._boot}|") for found in processes.values() for _, it in found)
        if ready and self._settings.alive_file is not None:
            self._settings.alive_file.touch()
        self._watch(ready=ready)
        self._store.sweep({*served, *processes}, seconds=self._settings.reap_seconds * SWEEPING_SHARE)

    def _served(self) -> list[str]:
        """The models that this worker serves; of the others it says why it does not."""
        faults = self._faults()
        if faults:
            self._store.show_faults(self._boot, faults, seconds=self._settings.reap_seconds * FAULT_SCANS)
        for model in faults.keys() - self._told:
            log.error("%s is not served: %s", model, faults[model])
            self._told.add(model)
        return [model for model in self._models if model not in faults]

    def _choose_bells(self, served: Sequence[str], processes: Mapping[str, list[tuple[str, str]]]) -> None:
        """Take the doorbells of what is served; those of a name only where no newer version of it is ready."""
        wanted = set(served)
        for name, found in processes.items():
            newest = max((ref for ref, _ in found), key=natural, default=None)
            if newest is None or newest in served:
                wanted.add(name)
        for model in wanted - self._taken:
            self._take_bells(model)
        for model in self._taken - wanted:
            self._leave_bells(model)
        if wanted != self._taken:
            log.info("takes doorbells of %s", ", ".join(sorted(wanted)))
        self._taken = wanted

    def _take_back_lapsed(self) -> None:
        """A lease that two scans in a row saw lapsed at the same end is made ready again."""
        overdue = self._store.overdue(OVERDUE_AT_ONCE)
        for token, end in overdue.items():
            if self._seen.get(token) == end:
                log.warning(
                    "%d chunks of a lapsed lease are ready again", self._store.lapse(token, WORKER_LOST, seen=end)
                )
        self._seen = overdue

    def _watch(self, *, ready: bool) -> None:
        """Give up where no child is ready, or where this worker is connected but has stopped listening.

        Celery's consumers have been seen to do the latter. A worker that listens takes a bell at once unless its
        children are busy, and then they hold leases. Another worker that took the bell first would have left none for
        the scan to see. Scans are counted, not time: in a process that was frozen time has passed, but nothing waited.
        """
        if ready and (
            self._bell_taken.is_set()
            or not any(map(self._store.bells, self._taken))
            or self._store.tokens(f"{self._boot}|")
        ):
            self._bell_taken.clear()
            self._idle_scans = 0
            return
        self._idle_scans += 1
        if self._idle_scans * self._settings.reap_seconds > self._settings.watchdog_seconds:
            self._idle_scans = 0
            what = "doorbells wait, and this worker has taken none" if ready else "no child has been ready"
            self._give_up(f"{what} for {self._settings.watchdog_seconds:g} s")
