"""Opens the store with a worker's settings."""

from jobs.store.for_workers.leases import LeaseStore
from jobs.store.for_workers.outbound import OutboundStore
from worker.settings import LeasingSettings


def open_lease_store(settings: LeasingSettings) -> LeaseStore:
    return LeaseStore(
        settings,
        lease_seconds=settings.lease_seconds,
        timeout_seconds=settings.store_timeout_seconds,
        crash_tries_max=settings.crash_tries_max,
        lost_leases_max=settings.losses_max,
    )


def open_outbound_store(settings: LeasingSettings) -> OutboundStore:
    return OutboundStore(settings, lease_seconds=settings.lease_seconds, timeout_seconds=settings.store_timeout_seconds)
