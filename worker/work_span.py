"""The span of a worker's work, linked to the requests that submitted its jobs."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from jobs.store.for_workers.leases import LeaseStore
from jobs.tracing import Attributes, linked_span


def work_span(
    store: LeaseStore, name: str, job_ids: Iterable[bytes], attributes: Attributes
) -> AbstractContextManager[None]:
    """Reads the jobs' `traceparent` at once: call it in the store's thread, and enter the context in any."""
    return linked_span(name, store.traceparents(job_ids), attributes)
