"""Releases leases that have lapsed, of whichever worker they were."""

import logging

from jobs.metrics.process_metrics import LAPSED_LEASES
from jobs.store.for_workers.leases import WORKER_LOST, LeaseStore
from jobs.store.keys import MAIN, OwnerToken, unpack_known

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100
RUNS = 2  # that see a lease overdue, before it is released


class LapsedLeases:
    def __init__(self, store: LeaseStore, *, suspect_runs: int) -> None:
        """`suspect_runs` is for how many runs the lapsed lease of a suspect is left to the worker that has it."""
        self._store = store
        self._suspect_runs = suspect_runs
        self._overdue = dict[str, tuple[str, int]]()
        """Owner token to the end of its lease, and how many runs in a row have seen it overdue with this end."""

    def run_once(self) -> None:
        """Release each lease that two runs in a row see overdue with the same end.

        A suspect whose worker lives has stopped its process: the worker kills that, and charges the image with
        `timeout`. The lease is left to it for a while.
        """
        overdue = self._store.overdue(OVERDUE_AT_ONCE)
        self._overdue = {token: (end, self._runs(token, end) + 1) for token, end in overdue.items()}
        due = [token for token, (_, runs) in self._overdue.items() if runs >= RUNS]
        for token in set(due) - self._left_to_their_workers(due):
            chunks = self._store.release(token, WORKER_LOST, seen=overdue[token])
            log.warning("%d chunks of a lapsed lease are ready again", chunks)
            LAPSED_LEASES.add()

    def reset(self) -> None:
        """Forget the last runs: a scan has failed, and runs in a row are counted anew."""
        self._overdue = {}

    def _runs(self, token: str, end: str) -> int:
        seen_end, runs = self._overdue.get(token, (end, 0))
        return runs if seen_end == end else 0

    def _left_to_their_workers(self, due: list[str]) -> set[str]:
        suspects = self._store.suspects_at_work([it for it in due if self._overdue[it][1] <= self._suspect_runs])
        if not suspects:
            return set()
        alive = {it.worker_id for it in self._store.ready_processes(MAIN)}
        return {it.pack() for it in unpack_known(OwnerToken, map(str.encode, suspects)) if it.worker_id in alive}
