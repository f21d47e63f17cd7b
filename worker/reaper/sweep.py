"""Sweeps the store: deletes what has expired, and rings the doorbells of work that waits."""

from collections.abc import Iterable

from jobs.model_manifest import name_of
from jobs.store.for_workers.leases import LeaseStore


class Sweep:
    def __init__(self, store: LeaseStore, models: Iterable[str], *, seconds: float) -> None:
        """A run takes about so many seconds at most, and leaves the rest to the next one."""
        self._store = store
        self._models = {name for ref in models for name in (ref, name_of(ref))}
        self._seconds = seconds

    def run_once(self) -> None:
        self._store.sweep(self._models, seconds=self._seconds)
