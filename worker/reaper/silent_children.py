"""Kills children that have stopped: native code that never gives the GIL back, a process that was stopped."""

import logging
from collections.abc import Callable, Iterable

from jobs.item_codes import ItemCode
from jobs.metrics.process_metrics import CRASHES
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import Heartbeat, OwnerToken, unpack_known

log = logging.getLogger(__name__)


class SilentChildren:
    """Their leases lapse, and other children take over the work; what is left here is a suspect that has done it.

    Celery's time limit ends such a child, too, but only after a minute, in which each child may meet the image. Runs
    are counted, not time: in a process that was frozen, time has passed but nothing has waited.
    """

    def __init__(self, store: LeaseStore, worker_id: str, kill: Callable[[int], None], *, runs_max: int) -> None:
        """`kill` ends a child by its pid, if it is still one. `runs_max` is how many runs a child may be silent."""
        self._store = store
        self._worker_id = worker_id
        self._kill = kill
        self._runs_max = runs_max
        self._silent_runs = dict[int, int]()  # pid of each child that was ready once

    def run_once(self, ready: Iterable[Heartbeat]) -> None:
        """`ready` are the heartbeats of this worker's children."""
        pids = {it.pid for it in ready}
        self._silent_runs = {pid: runs + 1 for pid, runs in self._silent_runs.items()} | dict.fromkeys(pids, 0)
        for pid in [pid for pid, runs in self._silent_runs.items() if runs > self._runs_max]:
            del self._silent_runs[pid]
            self._kill(pid)
            for token in self._tokens_of(pid):
                log.warning("timeout: %d chunks of a silent child are ready again", self._release(token))
                CRASHES.add(ItemCode.TIMEOUT)

    def reset(self) -> None:
        """Count silent runs anew: a scan has failed, so the children may not have reached Redis either."""
        self._silent_runs = dict.fromkeys(self._silent_runs, 0)

    def _release(self, token: str) -> int:
        return self._store.release(token, ItemCode.TIMEOUT)

    def _tokens_of(self, pid: int) -> list[str]:
        tokens = map(str.encode, self._store.tokens_of(self._worker_id))
        return [it.pack() for it in unpack_known(OwnerToken, tokens) if it.pid == pid]
