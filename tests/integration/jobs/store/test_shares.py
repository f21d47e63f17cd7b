"""Of every budget of bytes, an owner has at most what is left for others; another one is still served."""

import pytest

from jobs.codec import pack_outcomes, pack_retained, pack_upload
from jobs.errors import QueueFull
from jobs.item_codes import ItemCode
from jobs.owner_shares import OWNER_OF_ALL
from jobs.records import Failure, Lane
from jobs.spool.names import Pointer, new_failed_name
from jobs.store import keys
from jobs.store.for_api.open_job_parts import Part
from jobs.store.for_api.submission import Submission
from jobs.store.for_workers.leases import FinishedChunk, Lease
from jobs.store.for_workers.outbound import DeliveryStatus, OutboundStore
from jobs.store.job_hash import chunk_field, job_key
from tests.support.outbound import submit_urls
from tests.support.shares import EXPIRED_MS, JOBS_MAX, age, finish_all, share, until_refused
from tests.support.store import MODEL, Store, make_chunk

IMAGE = bytes(8 << 10)


async def test_uploads_of_one_owner_leave_as_much_to_others(small_store: Store) -> None:
    store = small_store
    budget = store.store_client.settings.uploads_budget_bytes

    accepted = await until_refused(lambda: store.submit(IMAGE, owner="alice"))
    assert 0.9 * budget / 2 < share(store, "alice")[0] <= budget / 2
    second = await until_refused(lambda: store.submit(IMAGE, owner="bob"))
    assert accepted / 2 - 2 <= second <= accepted / 2
    await store.submit(IMAGE, owner="carol")

    finish_all(store)
    assert [share(store, owner)[0] for owner in ("alice", "bob", "carol")] == [0, 0, 0]
    assert await until_refused(lambda: store.submit(IMAGE, owner="alice")) == accepted


async def test_a_bulk_lane_that_is_full_of_one_owner_has_room_for_another(small_store: Store) -> None:
    store = small_store
    await until_refused(lambda: store.submit(IMAGE, owner="alice"))
    await store.submit(IMAGE, owner="bob", lane=Lane.BULK)
    with pytest.raises(QueueFull):
        await store.submit(IMAGE, owner="alice", lane=Lane.BULK)


async def test_who_has_nothing_may_take_one_image_that_is_larger_than_half(small_store: Store) -> None:
    await small_store.submit(bytes(60_000), owner="bob")
    await small_store.submit(bytes(900_000), owner="alice")


async def test_a_server_without_keys_gives_its_owner_everything_and_counts_nothing(small_store: Store) -> None:
    store = small_store
    budget = store.store_client.settings.uploads_budget_bytes
    await until_refused(lambda: store.submit(IMAGE, owner=OWNER_OF_ALL), share=False)
    assert store.stat("uploads") > 0.95 * budget
    assert share(store, OWNER_OF_ALL) == (0, 0, 0)
    finish_all(store)
    assert store.redis.exists(keys.OWNERS, keys.ENDED_OF_OWNER + OWNER_OF_ALL, keys.OLDEST_ENDED) == 0


async def test_open_jobs_without_items_leave_as_many_records_to_others(small_store: Store) -> None:
    store = small_store
    budget = store.store_client.settings.records_budget_bytes
    opened = list[Part]()

    async def open_job() -> None:
        opened.append(await store.open(owner="alice"))

    await until_refused(open_job)
    assert 0.95 * budget / 2 < share(store, "alice")[2] <= budget / 2
    await store.submit(b"image", owner="bob")
    for part in opened[:10]:
        await store.jobs.delete(part.job_id, "alice")
    await store.open(owner="alice")


async def test_parts_ask_for_room_when_they_begin(small_store: Store) -> None:
    store = small_store
    budget = store.store_client.settings.records_budget_bytes
    part = await store.open(owner="alice")
    names = (n.to_bytes(8, "big") for n in range(JOBS_MAX))

    await until_refused(lambda: store.open_jobs.begin(Part(part.job_id, "alice", part.lane, 60, name=next(names))))
    assert 0.95 * budget / 2 < store.stat("records") <= budget / 2
    other = await store.open(owner="bob")
    assert (await store.open_jobs.begin(other)).chunks == 0

    whole = await store.open(owner=OWNER_OF_ALL)
    await until_refused(
        lambda: store.open_jobs.begin(Part(whole.job_id, OWNER_OF_ALL, part.lane, 60, name=next(names))),
        share=False,
    )
    assert 0.95 * budget < store.stat("records") <= budget


async def test_a_chunk_that_is_over_the_share_waits_for_the_owners_own_uploads(small_store: Store) -> None:
    store = small_store
    await until_refused(lambda: store.submit(IMAGE, owner="alice"))
    part = await store.open(owner="alice", lane=Lane.INTERACTIVE)
    with pytest.raises(QueueFull):
        await store.open_jobs.add(part, make_chunk([IMAGE]), bytes(16))
    assert store.redis.exists(keys.UPLOAD.encode() + part.job_id + part.token) == 0
    finish_all(store)
    await store.open_jobs.add(part, make_chunk([IMAGE]), bytes(16))


async def test_files_of_one_owner_leave_as_much_of_the_spool_to_others(small_store: Store) -> None:
    store = small_store
    large = bytes(100_000)

    async def submit(owner: str) -> Submission:
        submission = await store.submission(large, owner=owner)
        assert submission.chunk is not None
        await store.submitter.write_upload(submission, submission.chunk)
        await store.submitter.enqueue(submission)
        return submission

    assert await until_refused(lambda: submit("alice")) == 5
    assert await until_refused(lambda: submit("bob")) == 2
    assert share(store, "bob")[1] == 2 * (100_000 + 4)
    finish_all(store)
    assert [share(store, owner)[1] for owner in ("alice", "bob")] == [0, 0]


async def test_fetched_images_of_one_owner_leave_as_much_to_others(small_store: Store) -> None:
    store, numbers = small_store, iter(range(JOBS_MAX))
    assert isinstance(store.leases, OutboundStore)

    async def submit_url(owner: str) -> Lease:
        await submit_urls(store, "https://example.org/1.png", owner=owner)
        return store.claim(next(numbers), items=1, model=keys.FETCH)

    fetched, images = 0, pack_upload([IMAGE])
    while True:
        lease = await submit_url("alice")
        status = store.leases.deliver(lease.token, lease.chunks[0].chunk_ref, images)
        if status is not DeliveryStatus.OK:
            break
        fetched += 1
        assert fetched < JOBS_MAX
    assert status is DeliveryStatus.QUEUE_FULL
    assert store.stat("uploads") <= store.store_client.settings.uploads_budget_bytes / 2
    lease = await submit_url("bob")
    assert store.leases.deliver(lease.token, lease.chunks[0].chunk_ref, images) is DeliveryStatus.OK


@pytest.mark.parametrize("in_file", [False, True])
async def test_failed_images_of_one_owner_leave_room_for_those_of_another(small_store: Store, *, in_file: bool) -> None:
    store, kept = small_store, dict.fromkeys(("alice", "bob"), 0)
    results = pack_outcomes(f"{MODEL}@1", [Failure(ItemCode.WORKER_CRASHED)])
    for owner in kept:
        for number in range(100):
            job_id = await store.submit(b"one", owner=owner)
            lease = store.claim(number)
            images = pack_retained([(0, IMAGE)])
            if in_file:
                images = Pointer(new_failed_name(job_id, 0), 50_000, 0).pack()
            store.leases.finish(lease.token, [FinishedChunk(lease.chunks[0].chunk_ref, 0, results, images)])
            kept[owner] += store.redis.hexists(job_key(job_id), chunk_field("retained", 0))
    assert 0 < kept["bob"] < kept["alice"] < 100


async def test_what_an_earlier_release_left_in_the_shares_is_given_back(small_store: Store) -> None:
    """It frees uploads, and deletes jobs, without taking them off the owner's shares."""
    store = small_store
    job_id = await store.submit(IMAGE, owner="alice")
    store.redis.hincrby(keys.STATS, "uploads:alice", 400_000)
    store.redis.hincrby(keys.STATS, "spooled:alice", 400_000)
    store.redis.zincrby(keys.OWNERS, 200_000, "alice")
    await store.jobs.sweep([MODEL])
    assert share(store, "alice")[0] > 400_000, "what waits may be his"

    finish_all(store)
    await store.jobs.sweep([MODEL])
    assert share(store, "alice")[0] == 0
    await store.jobs.delete(job_id, "alice")
    await store.jobs.sweep([MODEL])
    assert share(store, "alice") == (0, 0, 0)


async def test_shares_of_jobs_that_this_release_did_not_count_stay_at_0(small_store: Store) -> None:
    store = small_store
    for _ in range(3):
        await store.submit(IMAGE, owner="alice")
    for name in ("uploads:alice", "spooled:alice"):
        store.redis.hdel(keys.STATS, name)
    store.redis.delete(keys.OWNERS)
    finish_all(store)
    assert share(store, "alice")[0] == 0
    age(store, "alice", by_ms=EXPIRED_MS)
    await store.jobs.sweep([MODEL])
    assert store.redis.zscore(keys.OWNERS, "alice") is None
    assert store.stat("records") == 0
