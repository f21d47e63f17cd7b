"""Reads which processes are ready to serve, and removes this worker's own from Redis when it stops."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jobs.model_manifest import name_of
from jobs.store.leases import LeaseStore


class ReadyProcesses(NamedTuple):
    """The processes whose heartbeats are in Redis, at one scan."""

    by_name: Mapping[str, list[tuple[str, str]]]
    """A model's name to its processes, of all workers: (name@version, process)."""
    own: frozenset[str]
    """The models, each as `name@version`, that children of this worker are ready to serve."""


class Heartbeats:
    def __init__(self, store: LeaseStore, models: Iterable[str], worker_id: str) -> None:
        self._store = store
        self._names = frozenset(map(name_of, models))
        self._own_prefix = f"{worker_id}|"

    def read(self) -> ReadyProcesses:
        by_name = {name: self._store.ready_processes(name) for name in self._names}
        own = (ref for found in by_name.values() for ref, process in found if process.startswith(self._own_prefix))
        return ReadyProcesses(by_name, frozenset(own))

    def remove(self) -> None:
        """Remove the heartbeats of this worker's children."""
        for name in self._names:
            self._store.leave(name, self._own_prefix)
