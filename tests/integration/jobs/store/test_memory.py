"""The memory that a job takes in Redis is covered by the bytes that the budgets count for it."""

import asyncio

import pytest

from jobs.records import Prediction
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.store import COAT, OWNER, Store, chunk_of


def used_memory(store: Store) -> int:
    store.redis.memory_purge()
    return int(store.redis.info("memory")["used_memory"])


async def memory_of_ended_job(
    store: Store, *, items: int, top_k: int, name: str | None, chunk_items: int, owner: str = OWNER
) -> tuple[float, float]:
    """The bytes of memory that an ended job takes, with all its keys and list members, and the bytes counted for it."""
    store.redis.execute_command("FLUSHALL", "SYNC")
    store.store_client.secret = b""
    await store.store_client.ready()
    before = used_memory(store)
    rounds = 40 // (1 + items // 16)
    for _ in range(rounds):
        images = [b"image"] * items
        await asyncio.gather(
            *(store.submit(*images, chunk_items=chunk_items, name=name, owner=owner) for _ in range(50))
        )
    number = 0
    while (lease := store.claim(number)).chunks:
        store.finish(lease, [Prediction(place, 0.01) for place in range(top_k)])
        number += 1
    return (used_memory(store) - before) / (rounds * 50), store.stat("records") / (rounds * 50)


@pytest.mark.parametrize(
    ("items", "top_k", "name", "chunk_items"),
    [
        (1, 5, None, 64),
        (1, 10, None, 64),
        (1, 100, None, 64),
        (1, 5, "n" * 80, 64),
        (2, 5, None, 64),
        (8, 5, None, 64),
        (64, 5, None, 64),
        (64, 5, "n" * 80, 64),
        (256, 5, None, 64),
        (12, 5, None, 1),
    ],
)
async def test_an_ended_job_takes_no_more_memory_than_is_counted(
    store: Store, items: int, top_k: int, name: str | None, chunk_items: int
) -> None:
    await memory_of_ended_job(store, items=1, top_k=5, name=None, chunk_items=64)  # the server's own buffers grow once
    used, counted = await memory_of_ended_job(store, items=items, top_k=top_k, name=name, chunk_items=chunk_items)
    print(f"{items} items, top {top_k}: {used:.0f} B used, {counted:.0f} B counted")
    assert used <= counted * 1.05
    if (items, top_k, name) == (1, 5, None):
        assert used <= 400
        assert counted <= 1.5 * used


async def test_a_job_that_counts_in_its_owners_share_takes_no_more_memory_than_is_counted(store: Store) -> None:
    await memory_of_ended_job(store, items=1, top_k=5, name=None, chunk_items=64)
    used, counted = await memory_of_ended_job(store, items=1, top_k=5, name=None, chunk_items=64, owner="alice")
    print(f"{used:.0f} B used, {counted:.0f} B counted")
    assert used <= counted * 1.05


async def test_waiting_uploads_take_no_more_memory_than_is_counted(store: Store) -> None:
    for size in (10, 600, 64_000):
        store.redis.execute_command("FLUSHALL", "SYNC")
        store.store_client.secret = b""
        before = used_memory(store)
        count = min(2_000, 20_000_000 // size)
        for _ in range(count):
            submission = await store.submission(bytes(size))
            await store.submitter.write_upload(submission, chunk_of(submission))
            store.redis.persist(keys.UPLOAD.encode() + submission.id + bytes(4))
        used = (used_memory(store) - before) / count
        print(f"an upload of {size} B: {used:.0f} B used")
        assert used <= (size + 4 + keys.UPLOAD_KEY_BYTES) * 1.25, "allocators round large sizes up by a fifth at most"


async def test_the_trace_of_a_job_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def record() -> tuple[int, int]:
        """The bytes of memory that the record of an ended job takes, and the bytes counted for it."""
        job_id = await store.submit(b"image")
        store.finish(store.claim(), COAT)
        return store.redis.memory_usage(job_key(job_id), samples=0), store.record_bytes(job_id)

    used, counted = await record()
    monkeypatch.setattr("jobs.store.for_api.submit.current_traceparent", lambda: f"00-{'a' * 32}-{'b' * 16}-01")
    used_with_trace, counted_with_trace = await record()
    print(f"{used_with_trace - used} B used, {counted_with_trace - counted} B counted")
    assert 55 <= used_with_trace - used <= (counted_with_trace - counted) * 1.05
