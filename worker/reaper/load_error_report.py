"""Reports which models this worker cannot serve, in the log and to Redis."""

import logging
from collections.abc import Callable, Mapping, Sequence

from jobs.store.for_workers.leases import LeaseStore

log = logging.getLogger(__name__)


class LoadErrorReport:
    def __init__(
        self,
        store: LeaseStore,
        models: Sequence[str],
        worker_id: str,
        load_errors: Callable[[], Mapping[str, str]],
        *,
        seconds: float,
    ) -> None:
        """`load_errors` returns the models that fail to load, with the reasons. A report expires after `seconds`."""
        self._store = store
        self._models = models
        self._worker_id = worker_id
        self._load_errors = load_errors
        self._seconds = seconds
        self._logged = set[str]()

    def run_once(self, ready: frozenset[str]) -> list[str]:
        """Report the load errors. Returns the models that this worker serves.

        A model that fails to load in one child and is ready in another is served.
        """
        load_errors = self._load_errors()
        if load_errors:
            self._store.show_load_errors(self._worker_id, load_errors, seconds=self._seconds)
        for model in load_errors.keys() - self._logged:
            log.error("%s is not served: %s", model, load_errors[model])
            self._logged.add(model)
        return [model for model in self._models if model not in load_errors or model in ready]

    def remove(self) -> None:
        self._store.show_load_errors(self._worker_id, {}, seconds=0)
