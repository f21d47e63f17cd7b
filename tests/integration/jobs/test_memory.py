"""What a job costs in Redis, and that the counted bytes cover it: budgets would not hold otherwise."""

from jobs import keys
from jobs.records import Prediction
from tests.support.store import Store

JOBS = 5_000
FIVE_CLASSES = [Prediction(number, 0.2) for number in range(5)]


def used_memory(store: Store) -> int:
    return int(store.redis.info("memory")["used_memory_dataset"])


async def test_an_ended_single_image_job_costs_at_most_400_bytes_and_not_more_than_is_counted(store: Store) -> None:
    await store.link.greeted()
    before = used_memory(store)
    for _ in range(JOBS):
        await store.submit(b"image")
    number = 0
    while (lease := store.claim(f"boot|task|1|{number}")).chunks:
        store.finish(lease, FIVE_CLASSES)
        number += 1
    store.redis.memory_purge()

    a_job = (used_memory(store) - before) / JOBS
    counted = store.stat("records") / JOBS
    print(f"an ended single-image job: {a_job:.0f} B used, {counted:.0f} B counted")
    assert a_job <= 400
    assert a_job <= counted <= 1.5 * a_job


async def test_waiting_uploads_cost_not_more_than_is_counted(store: Store) -> None:
    for size in (10, 600, 64_000):
        store.redis.flushall()
        store.link.secret = b""
        before = used_memory(store)
        count = min(2_000, 20_000_000 // size)
        for _ in range(count):
            submission = await store.submission(bytes(size))
            await store.submitter.write_upload(submission.id, 0, submission.chunks[0])
            store.redis.persist(keys.UPLOAD.encode() + submission.id + bytes(4))
        used = (used_memory(store) - before) / count
        print(f"an upload of {size} B: {used:.0f} B used")
        assert used <= (size + 4 + keys.CHUNK_BYTES) * 1.25, "allocators round large sizes up by a fifth at most"
