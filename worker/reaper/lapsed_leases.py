"""Releases leases that have lapsed, of whichever worker they were."""

import logging

from jobs.store.for_workers.leases import WORKER_LOST, LeaseStore

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100


class LapsedLeases:
    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._overdue = dict[str, str]()  # owner token to the end of its lease, as the last run saw them

    def run_once(self) -> None:
        """Release each lease that two runs in a row see overdue with the same end."""
        overdue = self._store.overdue(OVERDUE_AT_ONCE)
        for token, end in overdue.items():
            if self._overdue.get(token) == end:
                chunks = self._store.release(token, WORKER_LOST, seen=end)
                log.warning("%d chunks of a lapsed lease are ready again", chunks)
        self._overdue = overdue

    def reset(self) -> None:
        """Forget the last run: a scan has failed, and two runs in a row are counted anew."""
        self._overdue = {}
