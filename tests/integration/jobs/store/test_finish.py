import pytest

from jobs.codec import pack_outcomes, pack_retained, unpack_retained
from jobs.errors import JobExpired
from jobs.item_codes import ItemCode
from jobs.records import Failure, ItemState, JobState
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_workers.leases import FinishedChunk, Lease, LeaseStore
from jobs.store.job_hash import chunk_field, job_key
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, OWNER, Store, finished, owner_token

CRASHED = Failure(ItemCode.WORKER_CRASHED)


async def test_a_finish_gives_results_and_ends_the_job(store: Store) -> None:
    job_id = await store.submit(b"one")

    assert store.finish(store.claim()) == 1

    job = await store.get(job_id)
    assert (job.state, job.succeeded, job.unfinished) == (JobState.COMPLETED, 1, 0)
    assert job.single_item is not None
    assert (job.single_item.state, job.single_item.outcome, job.single_item.model_ref) == (
        ItemState.SUCCEEDED,
        COAT,
        "fmnist-mlp@1",
    )
    assert job.ended_ms is not None
    assert job.ended_ms >= job.accepted_ms


async def test_a_job_with_no_success_is_failed(store: Store) -> None:
    job_id = await store.submit(b"one", b"two")
    store.finish(store.claim(), Failure(ItemCode.NOT_AN_IMAGE))

    job = await store.get(job_id)
    assert (job.state, job.failed, job.succeeded) == (JobState.FAILED, 2, 0)


async def test_a_job_ends_with_its_last_chunk(store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 5, chunk_items=2)
    lease = store.claim(items=4)
    store.finish(lease)
    assert (await store.get(job_id)).state is JobState.RUNNING
    assert (await store.get(job_id)).unfinished == 1

    store.finish(store.claim(1))
    assert (await store.get(job_id)).state is JobState.COMPLETED
    items = [item async for _, _, item in store.jobs.items(await store.get(job_id))]
    assert [(item.index, item.name) for item in items] == [(n, f"{n}.png") for n in range(5)]


async def test_a_finish_leaves_no_lease_no_bytes_and_nothing_pending(store: Store) -> None:
    await store.submit(b"one")
    store.finish(store.claim())

    assert store.redis.exists(keys.LEASES, keys.LEASED_CHUNKS + owner_token(0)) == 0
    assert store.redis.keys(keys.UPLOAD + "*") == []
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}"), store.stat("transitions")) == (0, 0, 1)


async def test_a_second_finish_changes_nothing(store: Store) -> None:
    job_id = await store.submit(b"one")
    lease = store.claim()
    store.finish(lease)

    assert store.finish(lease, Failure(ItemCode.CORRUPT_IMAGE)) == 0

    assert (await store.get(job_id)).state is JobState.COMPLETED
    assert store.stat("transitions") == 1


async def test_a_finish_after_the_lease_lapsed_is_refused(store: Store) -> None:
    job_id = await store.submit(b"one")
    late = store.claim()
    store.leases.release(late.token, "worker_lost")
    again = store.claim(owner_token(0, pid=2))

    assert store.finish(late, Failure(ItemCode.CORRUPT_IMAGE)) == 0
    assert (await store.get(job_id)).state is JobState.RUNNING
    assert store.finish(again) == 1
    assert (await store.get(job_id)).state is JobState.COMPLETED


async def test_part_of_a_lease_may_be_finished_first(store: Store) -> None:
    await store.submit(b"one")
    await store.submit(b"two")
    lease = store.claim()
    first, second = finished(lease)

    assert store.leases.finish(lease.token, [first]) == 1
    assert store.leases.renew(lease.token)
    assert store.leases.finish(lease.token, [second]) == 1
    assert not store.leases.renew(lease.token)


async def test_a_finish_after_a_cancel_changes_nothing(store: Store) -> None:
    job_id = await store.submit(b"one")
    lease = store.claim()
    await store.jobs.cancel(job_id, OWNER)

    assert store.finish(lease) == 0

    job = await store.get(job_id)
    assert (job.state, job.succeeded) == (JobState.CANCELED, 0)
    assert job.single_item is not None
    assert job.single_item.state is ItemState.CANCELED
    assert store.stat("transitions") == 1


async def test_a_finish_after_a_delete_writes_nothing(store: Store) -> None:
    job_id = await store.submit(b"one")
    lease = store.claim()
    await store.jobs.delete(job_id, OWNER)

    assert store.finish(lease) == 0

    with pytest.raises(JobExpired):
        await store.get(job_id)
    await store.jobs.sweep([MODEL])
    assert store.redis.keys(keys.JOB + "*") + store.redis.keys(keys.UPLOAD + "*") == []
    assert (store.stat("uploads"), store.stat("records"), store.stat(f"pending:{OWNER}")) == (0, 0, 0)


async def test_finish_and_claim_in_one_call_survive_an_emptied_script_cache(store: Store) -> None:
    first, second = await store.submit(b"one"), await store.submit(b"two")
    lease = store.claim(items=1)
    store.redis.script_flush()

    limits = {"items_max": 64, "unshared_items": 64, "bytes_max": 1 << 20, "turn": 0, "bulk_items_max": 64}
    next_lease = store.leases.finish_and_claim(lease.token, finished(lease), MODEL, owner_token(1), **limits)

    assert (await store.get(first)).state is JobState.COMPLETED
    assert [c.chunk_ref.job_id for c in next_lease.chunks] == [second]


async def test_a_finish_rings_the_doorbell_if_work_is_left(store: Store) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    await store.submit(b"one")
    await store.submit(b"two")
    store.redis.delete(keys.QUEUE + MODEL)
    lease = store.claim(items=1)

    store.leases.finish(lease.token, finished(lease), ring_for=MODEL)
    assert store.redis.llen(keys.QUEUE + MODEL) == 1

    lease = store.claim(1)
    store.redis.delete(keys.QUEUE + MODEL)
    store.leases.finish(lease.token, finished(lease), ring_for=MODEL)
    assert store.redis.llen(keys.QUEUE + MODEL) == 0


async def test_drained_bytes_are_counted_and_never_subtracted(store: Store) -> None:
    for _ in range(2):
        await store.submit(b"image" * 100)
        waiting = store.stat("uploads")
        before = store.stat("drained")
        store.finish(store.claim())
        assert store.stat("drained") == before + waiting


def failed_with_retained_image(lease: Lease, image: bytes) -> list[FinishedChunk]:
    results = pack_outcomes("fmnist-mlp@1", [CRASHED])
    return [FinishedChunk(claimed.chunk_ref, 0, results, pack_retained([(0, image)])) for claimed in lease.chunks]


async def test_images_that_are_retained_for_a_retry_are_counted_and_deleted_with_their_job(store: Store) -> None:
    image = b"image" * 1000
    job_id = await store.submit(image)
    lease = store.claim()
    before = store.stat("records")

    assert store.leases.finish(lease.token, failed_with_retained_image(lease, image)) == 1

    retained = store.redis.hget(job_key(job_id), chunk_field("retained", 0))
    assert retained is not None
    assert unpack_retained(retained) == {0: image}
    assert store.stat("records") >= before + len(image)
    assert store.stat("records") == store.record_bytes(job_id)
    await store.jobs.delete(job_id, OWNER)
    await store.jobs.sweep([MODEL])
    assert store.stat("records") == 0


async def test_images_beyond_the_retry_budget_are_dropped(store: Store, valkey: Valkey) -> None:
    image = b"image" * 1000
    jobs = [await store.submit(image) for _ in range(4)]
    lease = store.claim()
    upload_budget = store.stat("records") + 14_000
    settings = StoreSettings(redis_url=valkey.url, redis_maxmemory_bytes=upload_budget * 5, records_budget_fraction=0.4)
    assert settings.retry_budget_bytes == upload_budget
    leases = LeaseStore(settings, lease_seconds=4, timeout_seconds=5)

    leases.finish(lease.token, failed_with_retained_image(lease, image))
    leases.close()

    assert [store.redis.hexists(job_key(job_id), chunk_field("retained", 0)) for job_id in jobs] == [
        True,
        True,
        False,
        False,
    ]
    assert store.stat("records") <= upload_budget
    assert {(await store.get(job_id)).state for job_id in jobs} == {JobState.FAILED}


async def test_the_webhook_of_a_job_is_due_when_its_last_chunk_is_finished(store: Store) -> None:
    submission = await store.submission(b"one")
    submission.webhook_url = "https://example.com/hook"
    await store.submitter.enqueue(submission)
    await store.submit(b"without")
    assert not store.redis.exists(keys.WEBHOOKS_DUE)

    store.finish(store.claim())

    assert store.redis.zrange(keys.WEBHOOKS_DUE, 0, -1) == [submission.id]
    job = await store.get(submission.id)
    assert store.redis.zscore(keys.WEBHOOKS_DUE, submission.id) == job.ended_ms
