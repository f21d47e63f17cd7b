"""Open jobs at their edges: writes that the store has lost, no room, slow uploads, a server out of memory."""

import dataclasses

import pytest

from jobs.errors import IdempotencyInProgress, QueueFull, UploadGone
from jobs.records import JobState
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.open_job_parts import OpenJobParts, Part
from tests.support.store import LIMITS, OWNER, Store, make_chunk
from tests.support.waiting import eventually

DIGEST = bytes(range(16))


async def test_a_chunk_that_does_not_continue_what_the_store_has_is_refused(store: Store) -> None:
    """The store has lost its last writes: neither this chunk nor the seal may hide that."""
    part = await store.open()
    await store.open_jobs.add(part, make_chunk([b"one"], 0), DIGEST)
    part.chunks = 2  # as if it had accepted another one
    with pytest.raises(UploadGone):
        await store.open_jobs.add(part, make_chunk([b"three"], 2), DIGEST)
    with pytest.raises(UploadGone):
        await store.open_jobs.seal(part.job_id, OWNER, chunks=2)
    assert (await store.get(part.job_id)).state is JobState.OPEN
    await store.open_jobs.seal(part.job_id, OWNER, chunks=1)


async def test_bytes_that_found_no_room_do_not_stay(store: Store, store_client: StoreClient) -> None:
    limits = dataclasses.replace(LIMITS, room_wait_seconds_max=0.1)
    open_jobs = OpenJobParts(store_client, store.upload_budget, limits)
    part = await store.open()
    store.redis.hset(keys.STATS, "uploads", store_client.settings.uploads_budget_bytes)
    with pytest.raises(QueueFull):
        await open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)
    assert store.redis.keys(keys.UPLOAD + "*") == []


async def test_a_part_whose_chunks_come_slowly_stays_with_its_holder_and_its_job_open(
    store: Store, store_client: StoreClient
) -> None:
    hold_seconds = 3.0  # longer than a busy machine stands still
    open_jobs = OpenJobParts(store_client, store.upload_budget, dataclasses.replace(LIMITS, hold_seconds=hold_seconds))
    part = await store.open(seconds=hold_seconds)
    await open_jobs.begin(part)

    def deadline() -> float:
        return store.redis.zscore(keys.OPEN_DEADLINES, part.job_id) or 0

    first = deadline()
    async with open_jobs.renewing(part):
        await eventually(lambda: deadline() > first + 1500 * hold_seconds, what="renewals")
        with pytest.raises(IdempotencyInProgress):
            await open_jobs.begin(Part(part.job_id, OWNER, part.lane, part.open_seconds))
    await open_jobs.add(part, make_chunk([b"one"], 0), DIGEST)


async def test_a_job_is_sealed_when_the_server_is_out_of_memory(store: Store) -> None:
    part = await store.open()
    await store.open_jobs.add(part, make_chunk([b"one"], 0), DIGEST)
    maxmemory = store.redis.config_get("maxmemory")["maxmemory"]
    store.redis.config_set("maxmemory", 1)
    try:
        await store.open_jobs.seal(part.job_id, OWNER)
    finally:
        store.redis.config_set("maxmemory", maxmemory)
    assert (await store.get(part.job_id)).state is JobState.QUEUED
