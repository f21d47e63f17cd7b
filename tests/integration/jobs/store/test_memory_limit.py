"""Redis' own memory stays below its limit, whatever an owner submits within its limits."""

from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobs.codec import result_bytes
from jobs.errors import QueueFull
from jobs.records import Prediction
from jobs.settings import StoreSettings
from jobs.store.for_workers.leases import LeaseStore
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import Store

MAXMEMORY_BYTES = 32 << 20
TOP_K = CLASSES = 100
IMAGES = 64


@pytest.fixture
async def small_store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store on a server with little memory."""
    with Valkey(tmp_path, maxmemory_bytes=MAXMEMORY_BYTES) as server, server.client as client:
        settings = StoreSettings(redis_url=server.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
        store_client = open_store_client(settings)
        with closing(LeaseStore(settings, lease_seconds=600, timeout_seconds=30)) as leases:
            yield Store(store_client, leases, client)
        await store_client.close()


async def test_results_of_many_classes_fit_since_they_were_set_aside_at_the_submit(small_store: Store) -> None:
    store, accepted = small_store, 0
    budget = store.store_client.settings.records_budget_bytes
    with suppress(QueueFull):
        while accepted < budget:
            submission = await store.submission(*[b"image"] * IMAGES)
            submission.result_bytes = result_bytes(TOP_K, CLASSES)
            await store.submitter.enqueue(submission)
            accepted += 1
    number = 0
    while (lease := store.claim(number)).chunks:
        store.finish(lease, [Prediction(place, 0.01) for place in range(TOP_K)])
        number += 1
        assert int(store.redis.info("memory")["used_memory"]) < MAXMEMORY_BYTES
    assert accepted * IMAGES * (6 * TOP_K) > budget * 0.7, "the budget is used"
    assert store.stat("records") <= budget


async def test_what_was_set_aside_for_results_is_given_back(store: Store) -> None:
    for end in ("finish", "cancel", "delete"):
        submission = await store.submission(*[b"image"] * IMAGES)
        submission.result_bytes = 1000
        before = store.stat("records")
        await store.submitter.enqueue(submission)
        assert store.stat("records") > before + 1000 * IMAGES
        if end == "finish":
            store.finish(store.claim())
        elif end == "cancel":
            await store.jobs.cancel(submission.id, submission.owner)
        else:
            await store.jobs.delete(submission.id, submission.owner)
        assert store.stat("records") < before + 50 * IMAGES
        assert end == "delete" or store.record_bytes(submission.id) < 50 * IMAGES
