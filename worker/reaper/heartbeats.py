"""Reads which processes are ready to serve, and removes this worker's own from Redis when it stops."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jobs.model_manifest import name_of
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import MAIN, Heartbeat


class ReadyProcesses(NamedTuple):
    """The processes whose heartbeats are in Redis, at one scan."""

    by_name: Mapping[str, list[Heartbeat]]
    """A model's name to the heartbeats of its processes, of all workers."""
    own_heartbeats: Sequence[Heartbeat]
    """Those of this worker's children."""

    @property
    def own(self) -> frozenset[str]:
        """The models, each as `name@version`, that children of this worker are ready to serve."""
        return frozenset(it.ref for it in self.own_heartbeats)


class Heartbeats:
    def __init__(self, store: LeaseStore, models: Iterable[str], worker_id: str) -> None:
        self._store = store
        self._names = frozenset(map(name_of, models))
        self._worker_id = worker_id

    def read(self) -> ReadyProcesses:
        by_name = {name: self._store.ready_processes(name) for name in self._names}
        own = [it for found in by_name.values() for it in found if it.worker_id == self._worker_id]
        return ReadyProcesses(by_name, own)

    def remove(self) -> None:
        """Remove the heartbeats of this worker and of its children."""
        for name in {*self._names, MAIN}:
            self._store.remove_heartbeats(name, self._worker_id)
