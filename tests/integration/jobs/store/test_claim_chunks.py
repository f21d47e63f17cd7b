"""A claim pops chunks of unlike sizes in one call, puts back those that do not fit, and shares between owners."""

import itertools
import random
from collections import Counter

import pytest

from jobs.records import ChunkRef, Lane
from jobs.store import keys
from jobs.store.for_workers.leases import Lease
from tests.support.concurrent_submits import counting_script_calls, submit_concurrently
from tests.support.store import MODEL, OWNER, Store, owner_token


async def queue(store: Store, *chunks: int, owner: str = OWNER, lane: Lane = Lane.INTERACTIVE) -> list[bytes]:
    """Jobs of one chunk of so many items each, in order."""
    submissions = [await store.submission(*[b"image"] * items, owner=owner, lane=lane) for items in chunks]
    await submit_concurrently(store.submitter, submissions)
    return [submission.id for submission in submissions]


def claim(store: Store, number: int, *, items: int, bytes_max: int = 1 << 26) -> Lease:
    return store.leases.claim(MODEL, owner_token(number), items_max=items, bytes_max=bytes_max, turn=0)


def taken(lease: Lease) -> list[bytes]:
    return [claimed.chunk_ref.job_id for claimed in lease.chunks]


def waiting(store: Store, owner: str = OWNER) -> list[bytes]:
    chunk_refs = store.redis.lrange(f"{keys.READY}{MODEL}:i:{owner}", 0, -1)
    return [ChunkRef.unpack(chunk_ref).job_id for chunk_ref in chunk_refs]


@pytest.mark.parametrize(
    ("chunks", "items", "took"),
    [
        ([1] * 20, 8, 8),
        ([1, 1, 1, 6, 1, 1, 1, 1], 8, 3),  # by the size of the first, eight seem to fit
        ([1, 1, 1, 5, 1, 1, 1, 1], 8, 4),
        ([4, 1, 1, 9, 1, 1], 8, 3),
        ([2, 1, 1, 1, 1, 1, 1, 1, 1], 8, 7),
        ([9, 1, 1], 8, 1),  # a chunk that is too large is taken alone
        ([8, 1, 1], 8, 1),
        ([7, 2, 1], 8, 1),
        ([1, 64, 1, 1], 8, 1),
    ],
)
async def test_chunks_that_do_not_fit_are_back_in_their_places(
    store: Store, chunks: list[int], items: int, took: int
) -> None:
    jobs = await queue(store, *chunks)

    lease = claim(store, 0, items=items)

    assert taken(lease) == jobs[:took]
    assert waiting(store) == jobs[took:]
    assert lease.more == (took < len(jobs))


@pytest.mark.parametrize(
    ("sizes", "took"),
    [
        ([100] * 20, 9),
        ([100, 100, 900, 100, 100], 2),
        ([100, 700, 100, 100], 3),
        ([2000, 100], 1),
        ([100, 2000, 100], 1),
    ],
)
async def test_the_bytes_of_a_claim_have_their_bound_and_the_rest_its_place(
    store: Store, sizes: list[int], took: int
) -> None:
    submissions = [await store.submission(bytes(size)) for size in sizes]
    await submit_concurrently(store.submitter, submissions)
    jobs = [submission.id for submission in submissions]

    assert taken(claim(store, 0, items=64, bytes_max=1000)) == jobs[:took]
    assert waiting(store) == jobs[took:]


async def test_dead_chunks_among_those_that_are_popped_do_not_count_as_items(store: Store) -> None:
    jobs = await queue(store, *[1] * 12)
    for job_id in jobs[1:7]:
        await store.jobs.cancel(job_id, OWNER)

    assert taken(claim(store, 0, items=4)) == [jobs[0], *jobs[7:10]]
    assert waiting(store) == jobs[10:]


async def test_a_call_looks_at_a_limited_number_of_chunks_and_leaves_the_rest_in_order(store: Store) -> None:
    jobs = await queue(store, *[1] * 200)
    for job_id in jobs[1:180]:
        await store.jobs.cancel(job_id, OWNER)

    assert taken(claim(store, 0, items=256)) == jobs[:1]
    assert waiting(store) == jobs[120:]
    assert taken(claim(store, 1, items=256)) == jobs[180:]


@pytest.mark.parametrize("seed", range(8))
async def test_each_owners_chunks_are_taken_once_and_in_order_whatever_their_sizes(store: Store, seed: int) -> None:
    draw = random.Random(seed)
    sizes = {owner: draw.choices([1, 1, 1, 2, 3, 7, 20, 64], k=40) for owner in ("a", "b", "c")[: draw.randint(1, 3)]}
    jobs = {owner: await queue(store, *chunks, owner=owner) for owner, chunks in sizes.items()}
    owner_of = {job_id: owner for owner, ids in jobs.items() for job_id in ids}
    found = {owner: list[bytes]() for owner in jobs}

    for number in itertools.count():
        items_max, bytes_max = draw.randint(1, 80), draw.choice([100, 300, 1 << 26])
        lease = claim(store, number, items=items_max, bytes_max=bytes_max)
        items = sum(claimed.chunk_ref.items for claimed in lease.chunks)
        size = sum(claimed.chunk_ref.upload_bytes for claimed in lease.chunks)
        assert len(lease.chunks) == 1 or (items <= items_max and size <= bytes_max) or not lease.more
        for job_id in taken(lease):
            found[owner_of[job_id]].append(job_id)
        store.finish(lease)
        if not lease.more:
            break
        assert lease.chunks, "each claim makes progress"

    assert found == jobs
    assert (store.stat("uploads"), store.redis.exists(keys.LEASES)) == (0, 0)


async def test_owners_of_chunks_of_unlike_sizes_get_like_shares_in_the_long_run(store: Store) -> None:
    jobs = {
        "large": await queue(store, *[16] * 40, owner="large"),
        "mixed": await queue(store, *[16, 1, 4, 1, 8, 2] * 20, owner="mixed"),
        "small": await queue(store, *[1] * 640, owner="small"),
    }
    owner_of = {job_id: owner for owner, ids in jobs.items() for job_id in ids}

    shares = Counter[str]()
    for number in range(12):
        for claimed in claim(store, number, items=96).chunks:
            shares[owner_of[claimed.chunk_ref.job_id]] += claimed.chunk_ref.items

    assert shares.keys() == jobs.keys()
    assert max(shares.values()) - min(shares.values()) <= 2 * 16 * 3, shares


async def test_an_owner_whose_chunks_turn_out_larger_than_its_first_stops_at_its_share(store: Store) -> None:
    larger = await queue(store, 1, *[16] * 10, owner="larger")
    small = await queue(store, *[1] * 100, owner="small")

    assert taken(claim(store, 0, items=64)) == [*larger[:3], *small[:31]]
    assert waiting(store, "larger") == larger[3:]


async def test_an_owner_with_one_small_chunk_is_served_beside_any_backlog(store: Store) -> None:
    await queue(store, *[1] * 500, owner="greedy")
    (modest,) = await queue(store, 1, owner="modest")

    assert modest in taken(claim(store, 0, items=64))


async def test_a_large_chunk_that_did_not_fit_is_first_in_the_next_claim(store: Store) -> None:
    await queue(store, *[1] * 200, owner="small")
    (large,) = await queue(store, 60, owner="large")

    first, second = claim(store, 0, items=64), claim(store, 1, items=64)

    assert large not in taken(first)
    assert taken(second)[0] == large


async def test_many_single_images_are_claimed_in_one_call(store: Store) -> None:
    jobs = await queue(store, *[1] * 64)
    with counting_script_calls(store.redis) as counted:
        assert taken(claim(store, 0, items=64)) == jobs
    assert counted.calls <= 2, "the first call may fail because the server does not know the script"
    assert store.redis.info("commandstats")["cmdstat_lpop"]["calls"] <= 6, "not one call for each chunk"
