import asyncio

import pytest

from jobs.errors import QueueFull, QuotaExceeded, StoreUnavailable
from jobs.records import JobState, Lane
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.submission import accepted_job
from jobs.store.for_api.submit import Submitter
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import Heartbeat
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import MODEL, OWNER, WORKER_ID, Store, chunk_of, make_upload_budget

BASE_KEYS = {keys.SIGNING_KEY.encode()}


async def test_an_accepted_job_is_queued_and_its_upload_bytes_do_not_expire(store: Store) -> None:
    job_id = await store.submit(b"one")

    job = await store.get(job_id)
    assert (job.state, job.total, job.unfinished, job.lane) == (JobState.QUEUED, 1, 1, Lane.INTERACTIVE)
    upload = keys.UPLOAD.encode() + job_id + bytes(4)
    assert store.redis.ttl(upload) == -1, "upload bytes of an accepted job do not expire"
    assert store.stat("uploads") == 4 + len(b"one") + keys.UPLOAD_KEY_BYTES
    assert store.stat(f"pending:{OWNER}") == 1


async def test_upload_bytes_expire_unless_their_job_is_accepted(store: Store) -> None:
    submission = await store.submission(b"one")
    await store.submitter.write_upload(submission, chunk_of(submission))

    (upload,) = store.redis.keys(keys.UPLOAD + "*")
    assert 0 < store.redis.pttl(upload) <= 360_000


@pytest.mark.parametrize("images", [[b"one"], [b"one", b"two"]])
async def test_an_accepted_job_is_known_without_reading_it_back(store: Store, images: list[bytes]) -> None:
    submission = await store.submission(*images)
    submission.webhook_url, submission.retry_of = "https://example.com/done", bytes(16)

    accepted_ms = await store.submitter.enqueue(submission)

    assert isinstance(accepted_ms, int)
    assert accepted_job(submission, accepted_ms) == await store.get(submission.id)


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"uploads_budget_fraction": 1e-6}, QueueFull),
        ({"records_budget_fraction": 1e-7}, QueueFull),
    ],
)
async def test_a_job_over_a_budget_is_refused_and_leaves_nothing(
    store: Store, valkey: Valkey, settings: dict[str, float], refusal: type[Exception]
) -> None:
    store_client = open_store_client(StoreSettings(redis_url=valkey.url, **settings))
    submission = await store.submission(b"x" * 1000)

    with pytest.raises(refusal):
        await Submitter(store_client, make_upload_budget(store_client.settings), owner_pending_items_max=10).enqueue(
            submission
        )
    await store_client.close()

    assert store.keys() == BASE_KEYS


async def test_a_job_over_its_owners_quota_is_refused_and_leaves_nothing(
    store: Store, store_client: StoreClient
) -> None:
    submitter = Submitter(store_client, store.upload_budget, owner_pending_items_max=2)
    await store.submit(b"one")
    before = store.keys()

    with pytest.raises(QuotaExceeded):
        await submitter.enqueue(await store.submission(b"one", b"two"))
    assert store.keys() == before

    await submitter.enqueue(await store.submission(b"one", owner="another-owner"))


async def test_a_submit_whose_bytes_are_gone_is_refused(store: Store) -> None:
    submission = await store.submission(b"one")
    chunk_of(submission).data = None

    with pytest.raises(StoreUnavailable):
        await store.submitter.enqueue(submission)
    assert store.keys() == BASE_KEYS


async def test_a_submit_past_its_deadline_is_refused_and_leaves_nothing(
    store: Store, store_client: StoreClient
) -> None:
    await store.submitter.new_id(OWNER)
    store_client._clock_offset_ms -= 60_000

    with pytest.raises(StoreUnavailable):
        await store.submitter.enqueue(await store.submission(b"one"))
    assert store.keys() == BASE_KEYS


async def test_a_full_server_refuses_a_submit_and_leaves_nothing(store: Store, valkey: Valkey) -> None:
    submission = await store.submission(b"x" * 100_000)
    store.redis.config_set("maxmemory", 1)

    with pytest.raises(QueueFull):
        await store.submitter.enqueue(submission)
    store.redis.config_set("maxmemory", 0)
    assert store.keys() == BASE_KEYS


async def test_a_full_server_can_still_be_drained(store: Store) -> None:
    job_id = await store.submit(b"one")
    canceled, deleted = await store.submit(b"two"), await store.submit(b"three")
    lease = store.claim(items=1)
    store.redis.config_set("maxmemory", 1)

    assert store.leases.renew(lease.token)
    assert store.finish(lease) == 1
    await store.jobs.cancel(canceled, OWNER)
    await store.jobs.delete(deleted, OWNER)
    await store.jobs.sweep([MODEL])
    assert store.finish(store.claim()) == 0
    assert (await store.get(job_id)).state is JobState.COMPLETED
    assert store.stat("uploads") == 0


async def test_submits_survive_an_emptied_script_cache(store: Store) -> None:
    await store.submit(b"one")
    store.redis.script_flush()

    await asyncio.gather(*(store.submit(b"one") for _ in range(5)))

    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 6


async def test_a_submit_rings_the_doorbell_while_few_are_queued(store: Store, leases: LeaseStore) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    for _ in range(5):
        await store.submit(b"one")

    doorbells = store.redis.lrange(keys.QUEUE + MODEL, 0, -1)
    assert len(doorbells) == 2, "no more than doorbells_max"
    assert len(set(doorbells)) == 2, "each doorbell has an id of its own"
    for process in range(4):
        leases.heartbeat([(MODEL, Heartbeat("fmnist-mlp@1", WORKER_ID, process))], seconds=60)
    for _ in range(5):
        await store.submit(b"one")
    assert store.redis.llen(keys.QUEUE + MODEL) == 4, "one for each process that serves"


async def test_submits_go_on_after_the_servers_clock_was_stepped(store: Store, store_client: StoreClient) -> None:
    await store_client.ready()
    store_client._clock_offset_ms -= 3_600_000

    with pytest.raises(StoreUnavailable):
        await store.submit(b"one")
    await store.submit(b"one")
