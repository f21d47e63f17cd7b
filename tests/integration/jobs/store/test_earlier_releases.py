"""Stores as earlier releases have left them: this one reads every record, and brings every job to its end.

`tests/support/store_fixture.py` wrote the files, each with the code of its day. It also writes one with the code of
today, so that the next one that is kept is right.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.codec import pack_upload
from jobs.records import ItemState, Job, JobState
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.submission import ExistingJob
from jobs.store.for_workers.leases import WORKER_LOST
from jobs.store.for_workers.outbound import DeliveryStatus, OutboundStore
from jobs.store.job_hash import decode_job, job_command
from tests.conftest import TEST_DATA, open_store_client
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import COAT, MODEL, Store, owner_token
from tests.support.store_fixture import DIGEST, UPLOADS, write

STORES = [*sorted((TEST_DATA.parent / "stores").iterdir()), None]
ROUNDS_MAX = 100


@pytest.fixture(params=STORES, ids=lambda path: "today" if path is None else path.name)
async def earlier_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    files = tmp_path / "appendonlydir"
    if request.param is None:
        await asyncio.to_thread(write, files)
        assert any((files / UPLOADS).rglob("*.upload"))
    else:
        shutil.copytree(request.param, files)
    uploads = tmp_path / UPLOADS
    if (files / UPLOADS).exists():
        shutil.move(files / UPLOADS, uploads)
    with Valkey(tmp_path) as server, server.client as client:
        year = 365 * 86_400
        settings = StoreSettings(
            redis_url=server.url,
            redis_maxmemory_bytes=MAXMEMORY_BYTES,
            queue_deadline_seconds=30 * 86_400,
            result_ttl_seconds=30 * 86_400,
            uploads_url=f"file://{uploads}" if uploads.exists() else "redis:",
            uploads_free_bytes_min=1,
        )
        store_client = open_store_client(settings)
        await store_client.ready()
        now_ms = int(store_client.now_ms())
        for name in client.keys(keys.JOB + "*"):  # their times, as if they were of today
            for field in (keys.FIELDS["accepted_ms"], keys.FIELDS["active_ms"], keys.FIELDS["ended_ms"]):
                if client.hexists(name, field):
                    client.hset(name, field, now_ms - 1000)
        for token in client.zrange(keys.LEASES, 0, -1):  # that of today has not lapsed yet
            client.zadd(keys.LEASES, {token: 1})
        for job_id, _ in client.zrange(keys.OPEN_DEADLINES, 0, -1, withscores=True):
            client.zadd(keys.OPEN_DEADLINES, {job_id: now_ms + year * 1000})
        with closing(OutboundStore(settings, lease_seconds=4, timeout_seconds=30)) as leases:
            yield Store(store_client, leases, client)
        await store_client.close()


async def jobs_of(store: Store) -> list[Job]:
    ids = [name.removeprefix(keys.JOB.encode()) for name in store.redis.keys(keys.JOB + "*")]
    rows = await store.store_client.read(*map(job_command, ids))
    jobs = [decode_job(job_id, fields) for job_id, fields in zip(ids, rows, strict=True)]
    assert None not in jobs
    return [job for job in jobs if job is not None]


def due_webhooks(store: Store) -> dict[bytes, str]:
    assert isinstance(store.leases, OutboundStore)
    return {due.job.id: due.url for due in store.leases.take_webhooks(100, seconds=60)}


async def keys_are_kept(store: Store) -> None:
    """A repeat with an Idempotency-Key finds the job that it made."""
    for name in store.redis.keys(keys.IDEMPOTENCY_KEY + "*"):
        owner, _, digest = name.removeprefix(keys.IDEMPOTENCY_KEY.encode()).partition(b":")
        repeat = await store.submission(b"again", owner=owner.decode())
        repeat.key, repeat.fingerprint = digest, DIGEST
        assert await store.submitter.enqueue(repeat) == ExistingJob(store.redis.get(name) or b"", DIGEST)


async def test_every_job_of_an_earlier_release_ends(earlier_store: Store) -> None:
    store, numbers = earlier_store, iter(range(ROUNDS_MAX))
    assert isinstance(store.leases, OutboundStore)
    before = await jobs_of(store)
    assert {job.state for job in before} >= set(JobState) - {JobState.FAILED}
    for token, end in store.leases.overdue(100).items():
        assert store.leases.release(token, WORKER_LOST, seen=end) > 0
    for job in before:
        if job.state is JobState.OPEN:
            await store.open_jobs.seal(job.id, job.owner)

    for number in numbers:
        fetched = store.leases.claim(
            keys.FETCH, owner_token(number, pid=8), items_max=8, bytes_max=1, turn=number, bulk_items_max=8
        )
        for claimed in fetched.chunks:
            images = pack_upload([b"image"] * claimed.chunk_ref.items)
            assert store.leases.deliver(fetched.token, claimed.chunk_ref, images) is DeliveryStatus.OK
        lease = store.claim(owner_token(number, pid=9), turn=number)
        assert all(claimed.upload is not None for claimed in lease.chunks)
        store.finish(lease)
        await store.jobs.sweep([MODEL, keys.FETCH])
        if all(job.state.ended for job in await jobs_of(store)):
            break

    after = {job.id: job for job in await jobs_of(store)}
    for job in before:
        ended = after[job.id]
        assert (ended.state, ended.total) == (job.state if job.state.ended else JobState.COMPLETED, job.total)
        assert job.state.ended or ended.succeeded == job.total
        items = [item async for _, _, item in store.jobs.items(ended)]
        assert len(items) == job.total
        assert all(item.outcome == COAT for item in items if item.state is ItemState.SUCCEEDED)
    assert due_webhooks(store) == {job.id: job.webhook_url for job in before if job.webhook_url}
    await keys_are_kept(store)
    assert store.redis.exists(keys.LEASES) == 0
    assert (store.stat("uploads"), store.stat("spooled"), store.redis.keys(keys.UPLOAD + "*")) == (0, 0, [])
    assert [store.stat(f"pending:{owner}") for owner in ("alice", "bob", "public")] == [0, 0, 0]
    assert store.stat("records") == sum(store.record_bytes(job_id) for job_id in after)
