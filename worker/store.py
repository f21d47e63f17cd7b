"""The store as this worker's settings have it."""

from jobs.store.leases import LeaseStore
from worker.settings import LeasingSettings


def open_store(settings: LeasingSettings) -> LeaseStore:
    return LeaseStore(settings, lease_seconds=settings.lease_seconds, timeout_seconds=settings.store_timeout_seconds)
