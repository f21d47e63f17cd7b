"""Selects whose doorbells this worker takes."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from jobs.model_manifest import name_of, natural_sort_key
from jobs.store.keys import Heartbeat

log = logging.getLogger(__name__)

OUTDATED_RUNS = 3  # in which a newer version was ready, before the doorbells of the name are left to it


class QueueSelection:
    def __init__(self, models: Iterable[str], consume: Callable[[frozenset[str]], None]) -> None:
        """`consume` is called in each run with the models whose doorbells are to be taken."""
        self.selected = frozenset(models)
        self._consume = consume
        self._outdated_runs = Counter[str]()  # a model's name to the runs in a row that saw a newer version ready

    def run_once(self, served: Collection[str], processes: Mapping[str, list[Heartbeat]]) -> None:
        """Take the doorbells of each served version, and those of its name while no newer version is ready.

        A worker with the newer version starts consuming within two scans of its own; until then both consume.
        `processes` maps a model's name to the heartbeats of its ready processes.
        """
        selected = set(served)
        for name in set(map(name_of, served)):
            newest = max((it.ref for it in processes[name]), key=natural_sort_key, default=None)
            outdated = newest is not None and newest not in served
            self._outdated_runs[name] = self._outdated_runs[name] + 1 if outdated else 0
            if not outdated or (name in self.selected and self._outdated_runs[name] < OUTDATED_RUNS):
                selected.add(name)
        if selected != self.selected:
            log.info("consuming doorbells of %s", ", ".join(sorted(selected)))
        self.selected = frozenset(selected)
        self._consume(self.selected)
