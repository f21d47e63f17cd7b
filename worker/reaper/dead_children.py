"""Releases the leases of children that died."""

import logging
from collections import deque

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from jobs.item_codes import ItemCode
from jobs.metrics.process_metrics import CRASHES
from jobs.store.for_workers.leases import LeaseStore
from worker.oom import oom_kills

log = logging.getLogger(__name__)


class DeadChildren:
    def __init__(self, store: LeaseStore, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id
        self._deaths = deque[tuple[str, ItemCode]]()  # id of the child's task, cause of death
        self._oom_kills = oom_kills()

    def add(self, task_id: str, exception: BaseException) -> bool:
        """Add the death of a child to the next run. False: the task failed with an error, and its child is alive.

        Called in Celery's event loop, beside a run.
        """
        if isinstance(exception, TimeLimitExceeded):
            code = ItemCode.TIMEOUT
        elif isinstance(exception, WorkerLostError):
            before, self._oom_kills = self._oom_kills, oom_kills()
            code = ItemCode.OUT_OF_MEMORY if self._oom_kills > before else ItemCode.WORKER_CRASHED
        else:
            return False
        self._deaths.append((task_id, code))
        return True

    def run_once(self) -> None:
        """Release the leases of each death. A death stays on the list until Redis has confirmed its releases."""
        while self._deaths:
            task_id, code = self._deaths[0]
            for token in self._store.tokens_of(self._worker_id, task_id):
                log.warning("%s: %d chunks of a dead child are ready again", code, self._store.release(token, code))
                CRASHES.add(code)
            self._deaths.popleft()
