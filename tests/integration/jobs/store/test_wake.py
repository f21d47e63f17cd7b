"""A child that lingers is woken by a token, of which each model has one while work may be ready."""

import asyncio
from contextlib import closing

import pytest

from jobs.store import keys
from jobs.store.for_workers.leases import RETURNED, LeaseStore
from tests.support.concurrent_submits import submit_concurrently
from tests.support.store import MODEL, OWNER, Store, make_chunk
from tests.support.waiting import eventually

WAKE = keys.WAKE + MODEL
LONG_SECONDS = 120  # the time for which a child lingers: far beyond SOON_SECONDS if it is not woken
SOON_SECONDS = 30


def tokens(store: Store, model: str = MODEL) -> int:
    return store.redis.llen(keys.WAKE + model)


def linger(store: Store) -> None:
    with closing(LeaseStore(store.store_client.settings, lease_seconds=4, timeout_seconds=180)) as leases:
        leases.await_work([MODEL], LONG_SECONDS)


async def lingering(store: Store) -> "asyncio.Task[None]":
    """A child that waits for work."""
    waiting = asyncio.create_task(asyncio.to_thread(linger, store))
    await eventually(lambda: store.redis.info("clients")["blocked_clients"] == 1, what="a child that lingers")
    return waiting


async def woken(waiting: "asyncio.Task[None]") -> None:
    """Return once the child is woken, well before its wait would end by itself."""
    async with asyncio.timeout(SOON_SECONDS):
        await waiting


async def test_any_number_of_submits_leaves_one_token_while_no_child_lingers(store: Store) -> None:
    for _ in range(3):
        await store.submit(b"one")
    assert tokens(store) == 1
    await submit_concurrently(store.submitter, [await store.submission() for _ in range(20)])
    assert tokens(store) == 1


async def test_a_token_is_for_one_model(store: Store) -> None:
    await store.submit(b"one", model="other")
    assert (tokens(store, "other"), tokens(store)) == (1, 0)


async def test_images_that_are_to_be_fetched_wake_no_child(store: Store) -> None:
    part = await store.open()
    chunk = make_chunk([b"http://example.org/a.png"])
    chunk.by_reference = True
    await store.open_jobs.add(part, chunk, bytes(16))
    assert store.redis.keys(f"{keys.WAKE}*") == []


async def test_a_claim_that_takes_all_there_is_takes_the_token_too(store: Store) -> None:
    await store.submit(b"one")
    store.claim()
    assert tokens(store) == 0


async def test_a_claim_that_finds_nothing_takes_a_token_that_was_left(store: Store) -> None:
    await store.jobs.cancel(await store.submit(b"one"), OWNER)
    assert tokens(store) == 1
    assert store.claim().chunks == []
    assert tokens(store) == 0


async def test_a_claim_that_leaves_work_leaves_one_token_for_the_next_child(store: Store) -> None:
    for _ in range(3):
        await store.submit(b"one")
    store.redis.delete(WAKE)  # as if a child had been woken
    assert store.claim(items=1).more
    assert tokens(store) == 1
    assert store.claim(1, items=1).more
    assert tokens(store) == 1


async def test_a_claim_of_one_lane_leaves_a_token_for_the_other(store: Store) -> None:
    await store.submit(*[b"bulk"] * 65)
    await store.submit(b"one")
    store.claim()
    assert tokens(store) == 1


async def test_a_submit_wakes_a_child_that_lingers(store: Store) -> None:
    waiting = await lingering(store)
    await store.submit(b"one")
    await woken(waiting)
    assert tokens(store) == 0, "the child has taken the token"


async def test_a_chunk_of_an_open_job_wakes_a_child_that_lingers(store: Store) -> None:
    part = await store.open()
    waiting = await lingering(store)
    await store.open_jobs.add(part, make_chunk([b"image"]), bytes(16))
    await woken(waiting)


async def test_a_returned_lease_wakes_a_child_that_lingers(store: Store) -> None:
    await store.submit(b"one")
    lease = store.claim()
    waiting = await lingering(store)
    store.leases.release(lease.token, RETURNED)
    await woken(waiting)


async def test_a_child_that_starts_to_linger_after_the_submit_does_not_wait(store: Store) -> None:
    await store.submit(b"one")
    await woken(asyncio.create_task(asyncio.to_thread(linger, store)))


async def test_a_wait_without_work_ends_after_its_time(store: Store) -> None:
    waiting = asyncio.create_task(asyncio.to_thread(store.leases.await_work, [MODEL], 2))
    await eventually(lambda: store.redis.info("clients")["blocked_clients"] == 1, what="a child that lingers")
    await woken(waiting)


@pytest.mark.parametrize("seconds", [1e-9, 0.0004])
async def test_the_shortest_wait_does_not_last_for_ever(store: Store, seconds: float) -> None:
    await woken(asyncio.create_task(asyncio.to_thread(store.leases.await_work, [MODEL], seconds)))


async def test_a_sweep_takes_a_token_that_was_left_with_nothing_ready(store: Store) -> None:
    await store.jobs.cancel(await store.submit(b"one"), OWNER)
    assert tokens(store) == 1
    await store.jobs.sweep([MODEL])
    assert tokens(store) == 0


async def test_a_sweep_leaves_a_token_if_work_is_ready(store: Store) -> None:
    await store.submit(b"one")
    await store.jobs.sweep([MODEL])
    assert tokens(store) == 1


async def test_a_sweep_wakes_a_child_that_lingers_beside_work(store: Store) -> None:
    """Its token may have been taken by a child that died."""
    await store.submit(b"one")
    store.redis.delete(WAKE)
    waiting = await lingering(store)
    await store.jobs.sweep([MODEL])
    await woken(waiting)


async def test_a_claim_that_leaves_work_wakes_the_next_child_that_lingers(store: Store) -> None:
    for _ in range(2):
        await store.submit(b"one")
    store.redis.delete(WAKE)  # as if the child that claims had been woken
    waiting = await lingering(store)
    assert store.claim(items=1).more
    await woken(waiting)
