import pytest

from jobs.errors import JobExpired
from jobs.item_codes import ItemCode
from jobs.records import Failure, ItemState, JobState
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.job_reader import JobReader
from jobs.store.job_hash import idempotency_key_name
from jobs.store.keys import Heartbeat
from tests.conftest import open_store_client
from tests.support.concurrent_submits import submit_concurrently
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, OWNER, WORKER_ID, Store, make_chunk, owner_token


async def sweep(valkey: Valkey, **settings: float) -> None:
    store_client = open_store_client(StoreSettings(redis_url=valkey.url, **settings))
    await JobReader(store_client).sweep([MODEL])
    await store_client.close()


async def test_ended_jobs_are_deleted_after_their_time_to_live_and_not_before(store: Store, valkey: Valkey) -> None:
    old, young = await store.submit(b"one"), await store.submit(b"two")
    store.finish(store.claim())
    store.age(old, 3601)
    store.age(young, 3500)

    await sweep(valkey, result_ttl_seconds=3600)

    with pytest.raises(JobExpired):
        await store.get(old)
    assert (await store.get(young)).state is JobState.COMPLETED


async def test_after_the_time_to_live_nothing_of_a_job_is_left(store: Store, valkey: Valkey) -> None:
    await store.store_client.ready()
    before = store.keys()
    jobs = [await store.submit(*[b"image"] * 3, chunk_items=2) for _ in range(50)]
    for number in range(50):
        store.finish(store.claim(number, items=4))
    await store.jobs.cancel(jobs[0], OWNER)
    for job_id in jobs:
        store.age(job_id, 3601)

    await sweep(valkey, result_ttl_seconds=3600)

    left = store.keys() - before - {keys.STATS.encode()}
    assert left == set()
    assert (store.stat("uploads"), store.stat("records"), store.stat(f"pending:{OWNER}")) == (0, 0, 0)
    assert store.stat("transitions") == 150


async def test_a_hundred_jobs_of_three_owners_are_deleted_with_all_references_to_them(
    store: Store, valkey: Valkey
) -> None:
    await store.store_client.ready()
    owners, before = ("a", "b", "c"), store.keys()
    submissions = [await store.submission(b"image", owner=owners[n % 3]) for n in range(100)]
    for n, submission in enumerate(submissions):
        submission.key = n.to_bytes(16, "big") if n % 2 else b""
        submission.webhook_url = "https://example.org/hook" if n % 5 < 3 else ""
    await submit_concurrently(store.submitter, submissions)
    number = 0
    while (lease := store.claim(number)).chunks:
        store.finish(lease, Failure(ItemCode.NOT_AN_IMAGE) if number else COAT)
        number += 1
    assert (len(store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*")), store.redis.zcard(keys.WEBHOOKS_DUE)) == (50, 60)
    for submission in submissions:
        store.age(submission.id, 3601)
    store.redis.config_resetstat()

    await sweep(valkey, result_ttl_seconds=3600)

    assert store.keys() - before == {keys.STATS.encode()}
    counters = ("uploads", "records", *(f"pending:{owner}" for owner in owners))
    assert [store.stat(name) for name in counters] == [0] * len(counters)
    assert store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= 5, "one call deletes up to forty jobs"


async def test_a_key_that_has_made_another_job_since_is_not_deleted(store: Store, valkey: Valkey) -> None:
    first, second = await store.submission(), await store.submission()
    first.key = second.key = b"k" * 16
    first.chunk = None
    await store.submitter.enqueue(first, open_seconds=60)
    await store.jobs.cancel(first.id, OWNER)
    await store.submitter.enqueue(second)
    store.age(first.id, 3601)

    await sweep(valkey, result_ttl_seconds=3600)

    with pytest.raises(JobExpired):
        await store.get(first.id)
    assert store.redis.get(idempotency_key_name(OWNER, first.key)) == second.id


async def test_jobs_within_their_time_to_live_stay_although_forty_before_them_are_deleted(
    store: Store, valkey: Valkey
) -> None:
    jobs = [await store.submit(b"image", owner=("a", "b")[n % 2]) for n in range(45)]
    while (lease := store.claim()).chunks:
        store.finish(lease)
    ended = {owner: store.redis.lrange(keys.ENDED_OF_OWNER + owner, 0, -1) for owner in ("a", "b")}
    left_of = {"a": ended["a"][21:], "b": ended["b"][20:]}
    for job_id in ended["a"][:21] + ended["b"][:20]:
        store.age(job_id, 3601)

    await sweep(valkey, result_ttl_seconds=3600)

    assert {owner: store.redis.lrange(keys.ENDED_OF_OWNER + owner, 0, -1) for owner in ended} == left_of
    left = {key.removeprefix(keys.JOB.encode()) for key in store.redis.keys(f"{keys.JOB}*")}
    assert left == {*left_of["a"], *left_of["b"]} <= set(jobs)
    assert len(left) == 4
    assert store.stat("records") == sum(store.record_bytes(job_id) for job_id in left)


async def test_over_the_record_budget_the_oldest_jobs_go_first_but_not_before_their_least_time_to_live(
    store: Store, valkey: Valkey
) -> None:
    jobs = [await store.submit(b"one") for _ in range(6)]
    for number in range(6):
        store.finish(store.claim(number, items=1))
    for job_id in jobs[:3]:
        store.age(job_id, 700)
    one = store.stat("records") / 6

    await sweep(valkey, redis_maxmemory_bytes=int(one * 5.2 / 0.3 / 0.9))
    assert [job.id for job in (await store.jobs.list(OWNER, before=None, limit=10, state=None))[0]] == jobs[:0:-1]

    await sweep(valkey, redis_maxmemory_bytes=1000)
    assert [job.id for job in (await store.jobs.list(OWNER, before=None, limit=10, state=None))[0]] == jobs[:2:-1]


async def test_upload_bytes_of_a_canceled_job_are_freed_whatever_its_size(store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 300, chunk_items=2)
    await store.jobs.cancel(job_id, OWNER)
    assert len(store.redis.keys(keys.UPLOAD + "*")) == 150

    await store.jobs.sweep([])

    assert store.redis.keys(keys.UPLOAD + "*") == []
    assert store.stat("uploads") == 0


async def test_a_job_that_no_worker_takes_ends_at_its_deadline(store: Store, valkey: Valkey) -> None:
    late = await store.submit(*[b"image"] * 4, chunk_items=2)
    store.finish(store.claim(items=2))
    in_time = await store.submit(b"one")
    store.age(late, 61)

    await sweep(valkey, queue_deadline_seconds=60)

    job = await store.get(late)
    assert (job.state, job.succeeded, job.failed, job.unfinished) == (JobState.COMPLETED, 2, 2, 0)
    items = [item async for _, _, item in store.jobs.items(job)]
    assert [item.state for item in items] == [ItemState.SUCCEEDED] * 2 + [ItemState.FAILED] * 2
    assert items[-1].outcome == Failure(ItemCode.DEADLINE_EXCEEDED)
    assert [c.chunk_ref.job_id for c in store.claim(owner_token(0, pid=2)).chunks] == [in_time]
    assert store.stat("transitions") == 4


async def test_a_job_that_makes_progress_does_not_end_at_the_queue_deadline(store: Store, valkey: Valkey) -> None:
    worked_on = await store.submit(*[b"image"] * 4, chunk_items=2)
    part = await store.open(owner="alice")
    for job_id in (worked_on, part.job_id):
        store.age(job_id, 61)
    store.finish(store.claim(items=2))
    await store.open_jobs.add(part, make_chunk([b"image"], 0), bytes(16))

    await sweep(valkey, queue_deadline_seconds=60)

    assert (await store.get(worked_on)).state is JobState.RUNNING
    assert (await store.get(part.job_id, "alice")).state is JobState.OPEN
    store.age(worked_on, 61)
    await sweep(valkey, queue_deadline_seconds=60)
    assert (await store.get(worked_on)).failure_code is ItemCode.DEADLINE_EXCEEDED


async def test_a_suspect_that_no_worker_takes_ends_at_its_deadline(store: Store, valkey: Valkey) -> None:
    late, in_time = await store.submit(b"one"), await store.submit(b"two")
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    store.age(late, 61)
    suspects = store.suspects()
    while not (store.redis.lindex(suspects, 0) or b"").startswith(late):
        store.redis.lmove(suspects, suspects, "LEFT", "RIGHT")

    await sweep(valkey, queue_deadline_seconds=60)

    job = await store.get(late)
    assert (job.state, job.failure_code) == (JobState.FAILED, ItemCode.DEADLINE_EXCEEDED)
    assert store.stat(f"pending:{OWNER}") == 1
    assert [c.chunk_ref.job_id for c in store.claim(owner_token(0, pid=2)).chunks] == [in_time]


async def test_suspects_of_ended_jobs_are_dropped(store: Store) -> None:
    jobs = [await store.submit(b"one") for _ in range(3)]
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    for job_id in jobs:
        await store.jobs.cancel(job_id, OWNER)

    await store.jobs.sweep([MODEL])

    assert store.redis.exists(store.suspects(), f"{keys.ROTATION}{MODEL}:{keys.SUSPECT_LANE}") == 0
    assert store.redis.keys(keys.UPLOAD + "*") == []


async def test_many_dead_chunks_of_one_owner_go_in_few_calls(store: Store) -> None:
    for job_id in [await store.submit(b"one") for _ in range(160)]:
        await store.jobs.cancel(job_id, OWNER)
    store.redis.config_resetstat()

    await store.jobs.sweep([MODEL])

    assert store.redis.exists(f"{keys.READY}{MODEL}:i:{OWNER}", f"{keys.ROTATION}{MODEL}:i") == 0
    assert store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= 12


@pytest.mark.parametrize("owner", [OWNER, "alice"])
async def test_a_clock_that_was_set_back_delays_no_sweep(store: Store, valkey: Valkey, owner: str) -> None:
    ahead, due = await store.submit(b"one", owner=owner), await store.submit(b"two", owner=owner)
    for number in range(2):
        store.finish(store.claim(number, items=1))
    store.age(ahead, -7200)
    store.age(due, 3601)

    await sweep(valkey, result_ttl_seconds=3600)

    with pytest.raises(JobExpired):
        await store.get(due, owner)
    job = await store.get(ahead, owner)
    assert job.ended_ms is not None
    assert job.ended_ms / 1000 <= store.redis.time()[0] + 1, "its time to live starts anew"
    store.age(ahead, 3601)
    await sweep(valkey, result_ttl_seconds=3600)
    assert store.redis.exists(keys.ENDED, keys.ENDED_OF_OWNER + owner, keys.OLDEST_ENDED) == 0


async def test_the_remains_of_deleted_jobs_are_counted_and_expire(store: Store, valkey: Valkey) -> None:
    retained = await store.submit(b"retained")
    store.finish(store.claim())
    one = store.stat("records")
    for number in range(5):
        job_id = await store.submit(b"one")
        if number % 2:
            store.finish(store.claim(number))
        await store.jobs.delete(job_id, OWNER)
    await sweep(valkey)
    assert store.redis.llen(keys.ENDED) == 6
    assert store.stat("records") == one + 5 * keys.ENDED_ID_BYTES

    store.age(retained, 3601)
    await sweep(valkey, result_ttl_seconds=3600)

    assert store.redis.exists(keys.ENDED, keys.OWNER_JOBS + OWNER) == 0
    assert store.stat("records") == 0


async def test_a_sweep_rings_the_doorbell_if_work_is_ready_and_none_is_queued(store: Store) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    await store.submit(b"one")
    store.redis.delete(keys.QUEUE + MODEL)

    await store.jobs.sweep([MODEL])
    await store.jobs.sweep([MODEL])
    assert store.redis.llen(keys.QUEUE + MODEL) == 1

    store.finish(store.claim())
    store.redis.delete(keys.QUEUE + MODEL)
    await store.jobs.sweep([MODEL])
    assert store.redis.llen(keys.QUEUE + MODEL) == 0


async def test_heartbeats_that_have_expired_are_removed(store: Store) -> None:
    store.leases.heartbeat([(MODEL, Heartbeat("fmnist-mlp@1", WORKER_ID, 1))], seconds=30)
    store.redis.zadd(keys.HEARTBEATS + MODEL, {Heartbeat("fmnist-mlp@1", WORKER_ID, 2).pack(): 1})

    await store.jobs.sweep([MODEL])

    assert store.redis.zrange(keys.HEARTBEATS + MODEL, 0, -1) == [
        Heartbeat("fmnist-mlp@1", WORKER_ID, 1).pack().encode()
    ]


async def test_any_number_of_models_is_swept_two_a_call(store: Store) -> None:
    models = [f"model-{number}" for number in range(20)]
    for model in models:
        store.redis.zadd(keys.HEARTBEATS + model, {Heartbeat(f"{model}@1", WORKER_ID, 2).pack(): 1})
    store.redis.config_resetstat()

    await store.jobs.sweep(models)
    store.leases.sweep(models, seconds=0)

    assert not store.redis.exists(*(keys.HEARTBEATS + model for model in models))
    assert store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= 2 * 11
