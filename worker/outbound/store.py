"""The store as an outbound worker's settings have it."""

from jobs.store.outbound import OutboundStore
from worker.settings import LeasingSettings


def open_outbound_store(settings: LeasingSettings) -> OutboundStore:
    return OutboundStore(settings, lease_seconds=settings.lease_seconds, timeout_seconds=settings.store_timeout_seconds)
