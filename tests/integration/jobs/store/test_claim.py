from collections import Counter

from jobs.codec import unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import JobState, Lane
from jobs.store import keys
from jobs.store.for_workers.leases import Lease
from tests.support.store import MODEL, OWNER, Store, make_chunk, owner_token


def claim(store: Store, number: int, *, items: int, bulk_items: int, turn: int = 0) -> Lease:
    token = owner_token(number)
    return store.leases.claim(MODEL, token, items_max=items, bulk_items_max=bulk_items, bytes_max=64 << 20, turn=turn)


async def test_a_claim_takes_what_is_ready_and_its_bytes(store: Store) -> None:
    job_id = await store.submit(b"one", b"two")

    lease = store.claim()

    (claimed,) = lease.chunks
    assert (claimed.chunk_ref.job_id, claimed.chunk_ref.items, claimed.top_k) == (job_id, 2, 5)
    assert claimed.upload is not None
    assert unpack_upload(claimed.upload, 2) == [b"one", b"two"]
    assert (await store.get(job_id)).state is JobState.RUNNING
    assert store.claim(1).chunks == []


async def test_a_claim_ends_at_its_limit_of_items(store: Store) -> None:
    for _ in range(10):
        await store.submit(b"one")

    lease = store.claim(items=7)

    assert len(lease.chunks) == 7
    assert lease.more
    assert not store.claim(1).more


async def test_a_chunk_that_does_not_fit_any_more_waits_for_the_next_claim_in_its_place(store: Store) -> None:
    small = await store.submit(b"one")
    large = await store.submit(*[b"image"] * 64)
    last = await store.submit(b"one")

    assert [c.chunk_ref.job_id for c in store.claim(items=64).chunks] == [small]
    assert [c.chunk_ref.job_id for c in store.claim(1, items=65).chunks] == [large, last]


async def test_bytes_bound_a_claim_but_one_larger_chunk_is_taken_alone(store: Store) -> None:
    jobs = [await store.submit(b"x" * 1000) for _ in range(3)]

    lease = store.leases.claim(MODEL, owner_token(0), items_max=64, bytes_max=2100, turn=0)
    assert [c.chunk_ref.job_id for c in lease.chunks] == jobs[:2]
    lease = store.leases.claim(MODEL, owner_token(1), items_max=64, bytes_max=10, turn=0)
    assert [c.chunk_ref.job_id for c in lease.chunks] == jobs[2:]


async def test_interactive_goes_first_and_every_eighth_claim_looks_at_bulk_first(store: Store) -> None:
    bulk = await store.submit(b"bulk", lane=Lane.BULK)
    interactive = [await store.submit(b"one") for _ in range(8)]

    taken = [store.claim(turn, items=1, turn=turn).chunks[0].chunk_ref.job_id for turn in range(9)]

    assert taken.index(bulk) == 6
    assert [job for job in taken if job != bulk] == interactive


async def test_bulk_is_claimed_when_nothing_else_is_ready(store: Store) -> None:
    bulk = await store.submit(b"bulk", lane=Lane.BULK)
    assert [c.chunk_ref.job_id for c in store.claim().chunks] == [bulk]


async def test_one_claim_is_of_one_lane(store: Store) -> None:
    await store.submit(b"bulk", lane=Lane.BULK)
    interactive = await store.submit(b"one")
    assert [c.chunk_ref.job_id for c in store.claim().chunks] == [interactive]


async def test_each_lane_has_its_own_number_of_items(store: Store) -> None:
    for _ in range(10):
        await store.submit(b"bulk", lane=Lane.BULK)
        await store.submit(b"one")

    leases = [claim(store, number, items=3, bulk_items=8, turn=turn) for number, turn in enumerate((0, 6))]

    assert [(lease.bulk, len(lease.chunks)) for lease in leases] == [(False, 3), (True, 8)]


async def test_a_claim_with_a_bulk_limit_of_zero_takes_neither_bulk_nor_suspects(store: Store) -> None:
    await store.submit(b"suspect")
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    await store.submit(b"bulk", lane=Lane.BULK)

    assert [claim(store, turn, items=64, bulk_items=0, turn=turn).chunks for turn in range(8)] == [[]] * 8

    interactive = await store.submit(b"one")
    (claimed,) = claim(store, 8, items=64, bulk_items=0, turn=6).chunks
    assert claimed.chunk_ref.job_id == interactive


async def test_a_suspect_is_of_no_lane(store: Store) -> None:
    await store.submit(b"suspect", lane=Lane.BULK)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)

    lease = store.claim(1, turn=1)
    assert (lease.suspect, lease.bulk) == (True, False)


async def test_the_first_claim_of_a_job_records_when_it_started(store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 2, chunk_items=1)
    assert (await store.get(job_id)).started_ms is None

    store.claim(items=1)
    started = (await store.get(job_id)).started_ms
    assert started is not None
    assert started >= (await store.get(job_id)).accepted_ms
    store.redis.hset(keys.JOB.encode() + job_id, keys.FIELDS["started_ms"], 1)
    store.claim(1)
    assert (await store.get(job_id)).started_ms == 1, "the first claim counts"


async def test_an_open_job_stays_open_when_it_is_claimed_and_its_start_is_recorded_once(store: Store) -> None:
    part = await store.open()
    for number in range(2):
        await store.open_jobs.add(part, make_chunk([b"image"], number), bytes(16))

    store.claim(items=1)
    job = await store.get(part.job_id)
    assert job.state is JobState.OPEN
    assert job.started_ms is not None
    store.redis.hset(keys.JOB.encode() + part.job_id, keys.FIELDS["started_ms"], 1)
    store.claim(1)
    assert (await store.get(part.job_id)).started_ms == 1

    await store.open_jobs.seal(part.job_id, OWNER)
    assert (await store.get(part.job_id)).state is JobState.RUNNING


async def test_owners_of_full_chunks_share_claims_of_any_size(store: Store) -> None:
    """A claim for 200 items fits three chunks of 64: an owner that got none of them is first in the next claim."""
    of = {await store.submit(*[b"x"] * 64 * 30, owner=owner, lane=Lane.BULK): owner for owner in ("a", "b", "c")}

    taken = Counter(
        of[claimed.chunk_ref.job_id]
        for number in range(15)
        for claimed in claim(store, number, items=64, bulk_items=200).chunks
    )

    assert taken.total() == 45
    assert max(taken.values()) - min(taken.values()) <= 1, taken


async def test_owners_share_a_claim_whatever_each_has_waiting(store: Store) -> None:
    greedy = {await store.submit(b"one", owner="greedy"): "greedy" for _ in range(100)}
    modest = {await store.submit(b"one", owner="modest"): "modest" for _ in range(2)}
    third = {await store.submit(b"one", owner="third"): "third" for _ in range(5)}
    of = greedy | modest | third

    counts = {"greedy": 0, "modest": 0, "third": 0}
    for claimed in store.claim(items=12).chunks:
        counts[of[claimed.chunk_ref.job_id]] += 1

    assert counts == {"greedy": 5, "modest": 2, "third": 5}


async def test_chunks_of_a_canceled_or_deleted_job_are_passed_over_and_swept(store: Store) -> None:
    canceled, deleted = await store.submit(b"one"), await store.submit(b"two")
    await store.jobs.cancel(canceled, OWNER)
    await store.jobs.delete(deleted, OWNER)
    queued = await store.submit(b"three")

    assert [c.chunk_ref.job_id for c in store.claim().chunks] == [queued]
    await store.jobs.sweep([])
    assert len(store.redis.keys(keys.UPLOAD + "*")) == 1


async def test_a_claim_says_when_only_dead_chunks_were_looked_at(store: Store) -> None:
    for _ in range(130):
        await store.jobs.cancel(await store.submit(b"one"), OWNER)
    live = await store.submit(b"one")

    first = store.claim()
    assert (first.chunks, first.more) == ([], True)
    assert [c.chunk_ref.job_id for c in store.claim(1).chunks] == [live]


async def test_models_do_not_see_each_others_work(store: Store) -> None:
    await store.submit(b"one", model="other")
    assert store.claim().chunks == []
    assert len(store.claim(model="other").chunks) == 1
