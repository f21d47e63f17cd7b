"""Redis' own memory stays below its limit, whatever clients send within their limits."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobs.codec import pack_outcomes, result_bytes
from jobs.errors import QueueFull
from jobs.item_codes import ItemCode
from jobs.records import Lane, Prediction
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_workers.leases import WORKER_LOST, LeaseStore
from jobs.store.for_workers.outbound import DeliveryStatus, OutboundStore
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import FETCH, Heartbeat
from tests.conftest import open_store_client
from tests.integration.api.conftest import running_api
from tests.support.archives import make_tar
from tests.support.outbound import submit_urls
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, OWNER, WORKER_ID, Store, owner_token
from tests.support.uploads import PNG, TAR

MAXMEMORY_BYTES = 32 << 20
TOP_K = CLASSES = 100
IMAGES = 64
CLIENTS, REPEATS = 4, 4


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[Valkey]:
    """A server with little memory."""
    with Valkey(tmp_path, maxmemory_bytes=MAXMEMORY_BYTES) as server:
        yield server


@pytest.fixture
async def small_store(small_server: Valkey) -> AsyncIterator[Store]:
    settings = StoreSettings(redis_url=small_server.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    store_client = open_store_client(settings)
    with small_server.client as client, closing(LeaseStore(settings, lease_seconds=600, timeout_seconds=30)) as leases:
        yield Store(store_client, leases, client)
    await store_client.close()


def assert_within_limit(store: Store) -> None:
    assert int(store.redis.info("memory")["used_memory"]) < MAXMEMORY_BYTES


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
        assert_within_limit(store)
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


async def test_parts_that_are_repeated_though_they_are_refused_leave_nothing(
    small_server: Valkey, small_store: Store, shirt: bytes
) -> None:
    """Bytes that wait for room are in no counter: left behind, they would take the room of single images."""
    part = make_tar({"a.png": shirt + bytes(3 << 20)})
    limits = {"redis_maxmemory_bytes": MAXMEMORY_BYTES, "room_wait_seconds_max": 0.2}
    async with running_api(small_server, **limits) as api:
        path = (await api.post("/v1/jobs?open=true")).headers["Location"]

        async def send_parts(client: int) -> None:
            refused = sent = 0
            while refused < REPEATS:
                headers = TAR | {"Idempotency-Key": f"{client} {sent}"}
                answer = await api.post(f"{path}/items", content=part, headers=headers)
                assert_within_limit(small_store)
                if answer.status_code == 202:
                    sent += 1
                else:
                    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
                    refused += 1

        await asyncio.gather(*map(send_parts, range(CLIENTS)))
        stored = sum(map(small_store.redis.strlen, small_store.redis.keys(f"{keys.UPLOAD}*")))
        assert 0 < stored <= small_store.stat("uploads"), "no bytes but those that are counted"
        answer = await api.post("/v1/jobs", content=shirt + bytes(1 << 20), headers=PNG)
        assert answer.status_code == 202, answer.text


async def test_fetched_images_leave_room_for_single_ones(small_store: Store) -> None:
    """Several outbound processes deliver at once, each until it is refused, and then again and again."""
    store, settings = small_store, small_store.store_client.settings
    await submit_urls(store, *(f"http://example.com/{n}.png" for n in range(32)), chunk_items=1, lane=Lane.BULK)
    beats = [(FETCH, Heartbeat(FETCH, WORKER_ID, pid)) for pid in range(CLIENTS)]
    store.leases.heartbeat(beats, seconds=600)

    def deliver_all(pid: int) -> int:
        delivered, refused = 0, 0
        with closing(OutboundStore(settings, lease_seconds=600, timeout_seconds=30)) as outbound:
            lease = outbound.claim(FETCH, owner_token(pid=pid), items_max=8, bytes_max=1 << 20, turn=0)
            chunks = [claimed.chunk_ref for claimed in lease.chunks]
            while chunks and refused < REPEATS:
                status = outbound.deliver(lease.token, chunks[0], bytes(1 << 20))
                assert_within_limit(store)
                if status is DeliveryStatus.OK:
                    delivered += 1
                    del chunks[0]
                else:
                    assert status is DeliveryStatus.QUEUE_FULL
                    refused += 1
        assert refused == REPEATS
        return delivered

    delivered = sum(await asyncio.gather(*(asyncio.to_thread(deliver_all, pid) for pid in range(CLIENTS))))
    assert delivered * (1 << 20) > settings.uploads_budget_bytes / 2, "the budget is used"
    await store.submit(b"x" * (1 << 20))
    assert_within_limit(store)


async def test_failure_counts_of_each_image_are_in_the_record_budget(store: Store) -> None:
    job_id = await store.submit(*[b"image"] * IMAGES)
    before, counts = store.record_bytes(job_id), chunk_field("failure_counts", 0)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    for item in range(IMAGES):
        for reason in (ItemCode.WORKER_CRASHED, WORKER_LOST):
            lease = store.claim(turn=1)
            store.leases.renew(lease.token, at_item=item)
            store.leases.release(lease.token, reason)
    stored = store.redis.hstrlen(job_key(job_id), counts)
    assert stored > 15 * IMAGES
    assert stored <= store.record_bytes(job_id) - before <= 1.2 * stored + 1
    assert store.stat("records") == store.record_bytes(job_id)
    await store.jobs.delete(job_id, OWNER)
    await store.jobs.sweep([MODEL])
    assert store.stat("records") == 0


async def test_failure_counts_of_a_fetch_are_given_back(store: Store) -> None:
    settings = store.store_client.settings
    job_id = await submit_urls(store, "http://example.com/a.png")
    before = store.record_bytes(job_id)
    store.leases.release(store.claim(model=FETCH).token, WORKER_LOST)
    assert store.record_bytes(job_id) > before
    with closing(OutboundStore(settings, lease_seconds=600, timeout_seconds=30)) as outbound:
        lease = store.claim(1, model=FETCH)
        assert outbound.deliver(lease.token, lease.chunks[0].chunk_ref, b"image") is DeliveryStatus.OK
    assert store.stat("records") == store.record_bytes(job_id) == before


async def test_what_a_chunk_had_before_its_end_is_not_kept_beside_its_results(store: Store) -> None:
    """Else each chunk with one slow image would take its results twice."""
    done = dict[bool, int]()
    for has_progress in (False, True):
        job_id = await store.submit(*[b"image"] * IMAGES)
        lease = store.claim()
        if has_progress:
            before = store.record_bytes(job_id)
            store.leases.renew(lease.token, at_item=-1, progress=pack_outcomes(f"{MODEL}@1", [COAT] * (IMAGES - 1)))
            assert store.record_bytes(job_id) > before
        store.finish(lease)
        assert not store.redis.hexists(job_key(job_id), chunk_field("progress", 0))
        done[has_progress] = store.record_bytes(job_id)
    assert done[True] == done[False]
    assert store.stat("records") == sum(done.values())
