"""Fetched images when the upload budget has no space, or when their lease has lapsed."""

import asyncio
from typing import Any

import pytest

from jobs.codec import pack_upload
from jobs.records import Lane
from jobs.store import keys
from jobs.store.for_workers.outbound import DeliveryStatus, OutboundStore
from jobs.store.keys import FETCH
from tests.support.outbound import RunSlice, claim_images, submit_urls
from tests.support.processes import MAXMEMORY_BYTES
from tests.support.store import MODEL, OWNER, Store, owner_token
from tests.support.waiting import eventually
from tests.support.web import Site

TIGHT: dict[str, Any] = {"redis_maxmemory_bytes": 20_000, "item_bytes_max": 1200}  # a budget of 10,000 bytes


async def test_images_wait_for_space_in_the_budget_and_go_on(store: Store, run_slice: RunSlice, site: Site) -> None:
    await store.submit(b"x" * 4500)
    await store.submit(b"x" * 4500)
    await submit_urls(store, site.responds("/a.png", body=b"y" * 1100))
    slice_run = asyncio.create_task(run_slice(**TIGHT))
    await eventually(lambda: site.requested("/a.png") == 1, what="the fetch")
    await eventually(lambda: store.redis.zcard(keys.LEASES) == 1, what="a lease on the image")
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 2

    store.finish(store.claim(items=1))
    await slice_run
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 2
    assert (site.requested("/a.png"), store.redis.zcard(keys.LEASES)) == (1, 0)


async def test_images_that_wait_for_space_for_too_long_are_released_without_a_failure(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    await store.submit(b"x" * 9500)
    await submit_urls(store, site.responds("/a.png", body=b"y" * 1100))
    await run_slice(**TIGHT, fetch_room_seconds_max=0.2, outbound_slice_seconds=0.5)
    lease = store.claim(model=FETCH)
    assert (lease.chunks[0].failure_counts.lost_leases, lease.chunks[0].failure_counts.crashes) == (0, 0)
    assert site.requested("/a.png") == 1, "the image is fetched once"


async def test_urls_that_fill_the_budget_do_not_wait_for_ever(store: Store, run_slice: RunSlice, site: Site) -> None:
    site.responds("/a.png", body=b"y" * 1100)
    urls = [f"{site.url}/a.png?{n}" + "q" * 1900 for n in range(6)]
    await submit_urls(store, *urls, chunk_items=1)
    await run_slice(**TIGHT, fetch_room_seconds_max=0.2)
    assert store.stat("uploads") > 10_000
    assert claim_images(store, items=1) == [b"y" * 1100]


async def test_fetched_images_of_bulk_jobs_leave_room_for_interactive_ones(
    store: Store, outbound: OutboundStore
) -> None:
    budget = store.store_client.settings.uploads_budget_bytes
    await store.submit(b"waits for the model")
    for lane in Lane:
        await submit_urls(store, "http://example.com/a.png", lane=lane)
    leases = [store.claim(number, items=1, model=FETCH) for number in range(2)]
    assert [lease.bulk for lease in leases] == [False, True]
    store.redis.hset(keys.STATS, "uploads", int(budget * 0.85))
    statuses = [outbound.deliver(it.token, it.chunks[0].chunk_ref, b"x" * 1000) for it in leases[::-1]]
    assert statuses == [DeliveryStatus.QUEUE_FULL, DeliveryStatus.OK]


async def test_a_full_redis_is_a_full_queue(store: Store, outbound: OutboundStore) -> None:
    await submit_urls(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    store.redis.config_set("maxmemory", 1)
    chunk_ref = lease.chunks[0].chunk_ref
    assert outbound.deliver(lease.token, chunk_ref, b"x" * 1000) is DeliveryStatus.QUEUE_FULL
    store.redis.config_set("maxmemory", MAXMEMORY_BYTES)
    assert outbound.deliver(lease.token, chunk_ref, b"x" * 1000) is DeliveryStatus.OK


async def test_images_that_a_full_redis_refuses_are_not_left_behind(
    store: Store, outbound: OutboundStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full once it has their bytes: those are in no counter, and the call is repeated."""
    await submit_urls(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    before, write = store.keys(), outbound._redis.set

    def fill(*args: Any, **options: Any) -> None:
        write(*args, **options)
        store.redis.config_set("maxmemory", 1)

    monkeypatch.setattr(outbound._redis, "set", fill)
    chunk_ref = lease.chunks[0].chunk_ref
    assert outbound.deliver(lease.token, chunk_ref, b"x" * 1000) is DeliveryStatus.QUEUE_FULL
    assert store.keys() == before


async def test_images_delivered_after_their_lease_has_lapsed_are_refused(store: Store, outbound: OutboundStore) -> None:
    await submit_urls(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    store.leases.release(lease.token, "returned")
    before = store.keys()
    assert outbound.deliver(lease.token, lease.chunks[0].chunk_ref, b"late") is DeliveryStatus.LOST
    assert store.keys() == before
    again = store.claim(model=FETCH, token=owner_token(0, pid=2))
    assert outbound.deliver(again.token, again.chunks[0].chunk_ref, pack_upload([b"x"])) is DeliveryStatus.OK
    assert outbound.deliver(again.token, again.chunks[0].chunk_ref, pack_upload([b"y"])) is DeliveryStatus.LOST
    assert claim_images(store) == [b"x"]
