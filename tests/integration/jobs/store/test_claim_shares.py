"""Of interactive work, a claim leaves a share to processes that are idle."""

import pytest

from jobs.records import Lane
from jobs.store import keys
from jobs.store.for_workers.leases import Lease
from jobs.store.keys import Heartbeat
from tests.support.store import MODEL, Store, owner_token


def serve(store: Store, processes: int, *, seconds: float = 60) -> None:
    heartbeats = [(MODEL, Heartbeat(f"{MODEL}@1", "worker", pid)) for pid in range(processes)]
    store.leases.heartbeat(heartbeats, seconds=seconds)


def claim(store: Store, number: int, *, unshared: int = 2, items: int = 64) -> Lease:
    limits = {"items_max": items, "unshared_items": unshared, "bytes_max": 1 << 20, "turn": 0}
    return store.leases.claim(MODEL, owner_token(number), **limits)


async def test_each_idle_process_gets_its_share(store: Store) -> None:
    serve(store, 3)
    for _ in range(8):
        await store.submit(b"one")
    assert [len(claim(store, number).chunks) for number in range(4)] == [3, 3, 2, 0]


async def test_a_process_takes_all_if_the_others_are_busy_or_gone(store: Store) -> None:
    serve(store, 2)
    serve(store, 4, seconds=-1)
    await store.submit(b"one")
    claim(store, 0)
    for _ in range(8):
        await store.submit(b"one")
    assert len(claim(store, 1).chunks) == 8


async def test_a_claim_is_never_less_than_what_is_not_worth_sharing(store: Store) -> None:
    serve(store, 2)
    for _ in range(8):
        await store.submit(b"one")
    assert [len(claim(store, number, unshared=6).chunks) for number in range(2)] == [6, 2]


async def test_a_share_is_no_more_than_a_claim_may_take(store: Store) -> None:
    serve(store, 2)
    for _ in range(20):
        await store.submit(b"one")
    assert len(claim(store, 0, items=5).chunks) == 5


async def test_a_share_is_taken_of_all_owners(store: Store) -> None:
    serve(store, 2)
    for number in range(8):
        await store.submit(b"one", owner=f"owner {number}")
    assert [len(claim(store, number).chunks) for number in range(2)] == [4, 4]


@pytest.mark.parametrize("lane", Lane)
async def test_a_chunk_of_many_images_is_taken_whole(store: Store, lane: Lane) -> None:
    serve(store, 2)
    for _ in range(2):
        await store.submit(*[b"one"] * 20, lane=lane)
    counts = [sum(it.chunk_ref.items for it in claim(store, number, items=30).chunks) for number in range(2)]
    assert counts == [20, 20]
    assert not store.redis.exists(keys.ROTATION + MODEL)
