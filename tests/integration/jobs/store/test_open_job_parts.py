"""Open jobs in the store: parts, repeats, seals, deadlines, keys."""

import asyncio
import dataclasses

import pytest

from jobs.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    JobEmpty,
    JobEnded,
    JobNotFound,
    JobSealed,
    QueueFull,
    QuotaExceeded,
    UploadTooLarge,
)
from jobs.records import ItemState, JobState, Lane
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.open_job_parts import OpenJobLimits, OpenJobParts, Part
from jobs.store.for_api.submission import ExistingJob
from jobs.store.job_hash import job_key
from tests.support.store import LIMITS, MODEL, OWNER, Store, finished, make_chunk
from tests.support.waiting import eventually

DIGEST = bytes(range(16))


def same_part_in_another_process(part: Part) -> Part:
    """The part as another process would resume it."""
    return Part(part.job_id, part.owner, part.lane, part.open_seconds, part.name)


async def test_chunks_are_claimed_while_their_job_is_open(store: Store) -> None:
    part = await store.open()
    await store.open_jobs.add(part, make_chunk([b"one", b"two"], 0), DIGEST)

    job = await store.get(part.job_id)
    assert (job.state, job.total, job.chunks) == (JobState.OPEN, 2, 1)
    store.finish(store.claim())
    job = await store.get(part.job_id)
    assert (job.state, job.succeeded) == (JobState.OPEN, 2), "an open job may get more chunks"

    await store.open_jobs.seal(part.job_id, OWNER)
    assert (await store.get(part.job_id)).state is JobState.COMPLETED


async def test_a_sealed_job_ends_with_its_last_chunk(store: Store) -> None:
    part = await store.open()
    for at in range(3):
        await store.open_jobs.add(part, make_chunk([b"image"], at), DIGEST)
    await store.open_jobs.seal(part.job_id, OWNER)
    assert (await store.get(part.job_id)).state is JobState.QUEUED
    store.finish(store.claim(items=1))
    assert (await store.get(part.job_id)).state is JobState.RUNNING
    store.finish(store.claim())

    job = await store.get(part.job_id)
    assert (job.state, job.succeeded) == (JobState.COMPLETED, 3)
    assert [item.name async for _, _, item in store.jobs.items(job)] == ["0.png", "1.png", "2.png"]


async def test_an_add_whose_reply_was_lost_may_be_repeated(store: Store) -> None:
    part = await store.open()
    for _ in range(3):
        part.chunks = 0  # as if the reply had been lost
        await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)

    assert (await store.get(part.job_id)).total == 1
    assert len(store.redis.keys(f"{keys.UPLOAD}*")) == 1, "the repeats' bytes are gone"


async def test_an_interrupted_part_resumes_at_its_next_chunk(store: Store) -> None:
    part = dataclasses.replace(await store.open(), name=b"part-one")
    assert (await store.open_jobs.begin(part)).chunks == 0
    await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)

    again = same_part_in_another_process(part)
    with pytest.raises(IdempotencyInProgress):
        await store.open_jobs.begin(again)
    field = keys.FIELDS["part"].encode() + part.name
    stored_part = bytearray(store.redis.hget(keys.JOB.encode() + part.job_id, field))
    stored_part[8:16] = b"\x3f\xf0" + bytes(6)  # the time at which the part is free again: 1.0 ms, big-endian
    store.redis.hset(keys.JOB.encode() + part.job_id, field, bytes(stored_part))
    progress = await store.open_jobs.begin(again)
    assert (progress.chunks, progress.digest, progress.done) == (1, DIGEST, False)

    again.chunks = progress.chunks
    await store.open_jobs.add(again, make_chunk([b"image"], 1), DIGEST)
    with pytest.raises(IdempotencyInProgress):
        await store.open_jobs.add(part, make_chunk([b"image"], 1), DIGEST)
    assert (await store.get(part.job_id)).total == 2, "the process that lost the part adds nothing"


async def test_a_part_that_is_done_is_shown_so_even_after_the_seal(store: Store) -> None:
    part = dataclasses.replace(await store.open(), name=b"part-one")
    await store.open_jobs.begin(part)
    await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)
    await store.open_jobs.add(part, None, DIGEST, done=True)
    await store.open_jobs.seal(part.job_id, OWNER)

    progress = await store.open_jobs.begin(same_part_in_another_process(part))
    assert (progress.chunks, progress.digest, progress.done) == (1, DIGEST, True)
    with pytest.raises(JobSealed):
        await store.open_jobs.begin(dataclasses.replace(part, name=b"part-two"))


async def test_a_job_takes_parts_from_its_owner_while_it_is_open(store: Store) -> None:
    part = await store.open()
    chunk = make_chunk([b"image"], 0)
    with pytest.raises(JobNotFound):
        await store.open_jobs.add(dataclasses.replace(part, owner="mallory"), chunk, DIGEST)
    with pytest.raises(JobEmpty):
        await store.open_jobs.seal(part.job_id, OWNER)
    await store.jobs.cancel(part.job_id, OWNER)
    with pytest.raises(JobEnded):
        await store.open_jobs.add(part, chunk, DIGEST)
    with pytest.raises(JobEnded):
        await store.open_jobs.seal(part.job_id, OWNER)


@pytest.mark.parametrize(
    ("limits", "refusal"), [({"owner_pending_items_max": 2}, QuotaExceeded), ({"job_items_max": 2}, UploadTooLarge)]
)
async def test_an_open_job_does_not_exceed_its_limits(
    store: Store, store_client: StoreClient, limits: dict[str, int], refusal: type[Exception]
) -> None:
    open_jobs = OpenJobParts(store_client, store.upload_budget, dataclasses.replace(LIMITS, **limits))
    part = await store.open()
    await open_jobs.add(part, make_chunk([b"image"] * 2, 0), DIGEST)
    with pytest.raises(refusal):
        await open_jobs.add(part, make_chunk([b"image"], 2), DIGEST)
    assert (await store.get(part.job_id)).total == 2
    assert len(store.redis.keys(f"{keys.UPLOAD}*")) == 1, "the bytes of the refused chunk are deleted"


LARGE = make_chunk([bytes(1500)], 0)


async def fill(store: Store) -> Part:
    """An open job whose next large chunk exceeds the bulk part of the budget, and is counted as being received."""
    store.upload_budget.reserve(store.upload_budget.for_jobs_bytes(Lane.BULK) - 2000, OWNER)
    part = await store.open()
    store.upload_budget.reserve(LARGE.upload_bytes, OWNER)
    await store.open_jobs.add(part, LARGE, DIGEST)
    return part


async def test_an_add_waits_for_space_in_the_budget_and_goes_on(store: Store) -> None:
    part = await fill(store)
    adding = asyncio.create_task(store.open_jobs.add(part, LARGE, DIGEST))
    await eventually(lambda: len(store.redis.keys(f"{keys.UPLOAD}*")) == 2, what="the bytes of the second chunk")
    assert not adding.done()
    store.finish(store.claim())
    await adding
    assert (await store.get(part.job_id)).total == 2


async def test_an_add_that_waits_for_space_for_too_long_is_refused(store: Store, store_client: StoreClient) -> None:
    limits = OpenJobLimits(owner_pending_items_max=10, job_items_max=10, room_wait_seconds_max=0.2, hold_seconds=9)
    part = await fill(store)
    with pytest.raises(QueueFull):
        await OpenJobParts(store_client, store.upload_budget, limits).add(part, LARGE, DIGEST)


async def test_bulk_jobs_leave_a_part_of_the_budget_to_single_uploads(store: Store) -> None:
    await fill(store)
    await store.submit(bytes(1500), lane=Lane.INTERACTIVE)


@pytest.mark.parametrize("items", [0, 1])
async def test_an_open_job_past_its_deadline_is_canceled(store: Store, items: int) -> None:
    part = await store.open()
    for at in range(items):
        await store.open_jobs.add(part, make_chunk([b"image"], at), DIGEST)
    store.redis.zadd(keys.OPEN_DEADLINES, {part.job_id: 1})
    await store.jobs.sweep([MODEL])

    job = await store.get(part.job_id)
    assert (job.state, job.unfinished) == (JobState.CANCELED, items)
    assert not store.redis.exists(keys.OPEN_DEADLINES)
    assert store.stat(f"pending:{OWNER}") == 0


async def test_an_open_job_of_an_earlier_version_that_seals_itself_does_so_at_its_deadline(store: Store) -> None:
    part = await store.open()
    store.redis.hset(job_key(part.job_id), keys.FIELDS["at_deadline"], "s")
    await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)
    store.redis.zadd(keys.OPEN_DEADLINES, {part.job_id: 1})
    await store.jobs.sweep([MODEL])

    assert (await store.get(part.job_id)).state is JobState.QUEUED
    store.finish(store.claim())
    assert (await store.get(part.job_id)).state is JobState.COMPLETED


async def test_every_add_puts_the_deadline_off(store: Store) -> None:
    part = await store.open(seconds=60)
    store.redis.zadd(keys.OPEN_DEADLINES, {part.job_id: 1})
    await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)
    await store.jobs.sweep([MODEL])
    assert (await store.get(part.job_id)).state is JobState.OPEN


async def test_an_open_job_that_is_deleted_leaves_nothing(store: Store) -> None:
    await store.store_client.ready()
    before = store.keys()
    part = await store.open()
    for at in range(3):
        await store.open_jobs.add(part, make_chunk([b"image"], at), DIGEST)
    lease = store.claim(items=1)
    await store.jobs.delete(part.job_id, OWNER)
    with pytest.raises(JobNotFound):
        await store.open_jobs.add(part, make_chunk([b"image"], 3), DIGEST)
    assert store.finish(lease) == 0, "a late finish brings nothing back"
    store.claim()
    await store.jobs.sweep([MODEL])

    assert store.keys() - before <= {keys.STATS.encode(), keys.ENDED.encode()}
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}")) == (0, 0)


async def test_the_same_key_makes_one_job(store: Store) -> None:
    first, second = [await store.submission(b"one") for _ in range(2)]
    first.key = second.key = bytes(16)
    first.fingerprint = second.fingerprint = DIGEST
    await store.submitter.enqueue(first)

    assert await store.submitter.enqueue(second) == ExistingJob(first.id, DIGEST)
    assert len(store.redis.keys(f"{keys.JOB}*")) == len(store.redis.keys(f"{keys.UPLOAD}*")) == 1

    second.fingerprint = DIGEST[::-1]
    with pytest.raises(IdempotencyKeyReused):
        await store.submitter.enqueue(second)

    other = await store.submission(b"one", owner="bob")
    other.key, other.fingerprint = first.key, DIGEST
    assert isinstance(await store.submitter.enqueue(other), int), "a key is its owner's"


async def test_the_key_of_an_open_stream_is_taken_until_that_ends_unsealed(store: Store) -> None:
    first, second = [await store.submission() for _ in range(2)]
    first.key = second.key = bytes(16)
    first.chunk = None
    await store.submitter.enqueue(first, open_seconds=60)
    second.fingerprint = DIGEST
    with pytest.raises(IdempotencyInProgress):
        await store.submitter.enqueue(second)
    assert await store.jobs.by_idempotency_key(OWNER, first.key) == await store.get(first.id)

    await store.jobs.cancel(first.id, OWNER)
    assert isinstance(await store.submitter.enqueue(second), int), "a broken stream may be sent again"
    await store.jobs.delete(first.id, OWNER)
    assert await store.jobs.by_idempotency_key(OWNER, first.key) == await store.get(second.id), (
        "the key is the second job's now"
    )
    await store.jobs.delete(second.id, OWNER)
    assert not store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*")


async def test_items_of_a_canceled_open_job_keep_their_results(store: Store) -> None:
    part = await store.open()
    for at in range(2):
        await store.open_jobs.add(part, make_chunk([b"image"], at), DIGEST)
    lease = store.claim(items=1)
    store.leases.finish(lease.token, finished(lease))
    await store.jobs.cancel(part.job_id, OWNER)
    job = await store.get(part.job_id)
    states = [item.state async for _, _, item in store.jobs.items(job)]
    assert states == [ItemState.SUCCEEDED, ItemState.CANCELED]
