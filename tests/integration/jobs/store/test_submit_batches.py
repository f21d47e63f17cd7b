"""Submits that share one call of the script: each is accepted or refused by itself."""

import asyncio
from collections import defaultdict

import pytest

from jobs.errors import IdempotencyInProgress, IdempotencyKeyReused, QueueFull, QuotaExceeded, StoreUnavailable
from jobs.ids import to_text
from jobs.records import LANE_CODE, ChunkRef, Lane
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.submission import ExistingJob, Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.job_hash import idempotency_key_name, upload_key
from jobs.store.wire import Command, Reply
from tests.support.concurrent_submits import blocking_commits, counting_script_calls, submit_concurrently
from tests.support.store import MODEL, OWNER, Store, chunk_of, make_chunk

KEY, FINGERPRINT = b"k" * 16, b"f" * 16


async def keyed(store: Store, fingerprint: bytes = FINGERPRINT) -> Submission:
    submission = await store.submission()
    submission.key, submission.fingerprint = KEY, fingerprint
    return submission


def stored(store: Store) -> tuple[set[bytes], set[bytes]]:
    """Ids of the jobs, and ids whose upload bytes are there."""
    ids = {key.removeprefix(keys.JOB.encode()) for key in store.redis.keys(f"{keys.JOB}*")}
    uploads = {key.removeprefix(keys.UPLOAD.encode())[:16] for key in store.redis.keys(f"{keys.UPLOAD}*")}
    return ids, uploads


# -- quota, budget


async def test_of_forty_submits_at_once_a_quota_of_twenty_five_lets_in_the_first_twenty_five(
    store: Store, store_client: StoreClient
) -> None:
    submitter = Submitter(store_client, store.upload_budget, owner_pending_items_max=25)
    submissions = [await store.submission() for _ in range(40)]

    outcomes = await submit_concurrently(submitter, submissions)

    assert [type(outcome) for outcome in outcomes] == [int] * 25 + [QuotaExceeded] * 15
    accepted = {submission.id for submission in submissions[:25]}
    assert stored(store) == (accepted, accepted), "the refused submits leave nothing"
    assert set(store.redis.zrange(keys.OWNER_JOBS + OWNER, 0, -1)) == accepted
    assert (store.stat("accepted"), store.stat(f"pending:{OWNER}")) == (25, 25)
    assert store.stat("uploads") == 25 * (chunk_of(submissions[0]).upload_bytes + keys.UPLOAD_KEY_BYTES)
    assert store.stat("records") == sum(store.record_bytes(job_id) for job_id in accepted)


async def test_a_submit_over_the_quota_does_not_stop_a_smaller_one(store: Store, store_client: StoreClient) -> None:
    submitter = Submitter(store_client, store.upload_budget, owner_pending_items_max=3)
    submissions = [await store.submission(*[b"image"] * items) for items in (2, 2, 1, 1)]
    submissions.append(await store.submission(owner="another"))

    outcomes = await submit_concurrently(submitter, submissions)

    assert [type(outcome) for outcome in outcomes] == [int, QuotaExceeded, int, QuotaExceeded, int]
    assert (store.stat(f"pending:{OWNER}"), store.stat("pending:another")) == (3, 1)


async def test_a_submit_over_the_upload_budget_is_refused_alone(store: Store) -> None:
    upload_budget = store.store_client.settings.uploads_budget_bytes
    submissions = [await store.submission(image) for image in (b"small", bytes(100_000), b"small")]
    store.upload_budget.reserve(upload_budget - 50_000, "another")  # as if uploads were being received

    first, second, third = await submit_concurrently(store.submitter, submissions)

    assert isinstance(second, QueueFull)
    assert 50_000 < second.over_bytes < 51_000, "the bytes that have to drain first"
    assert [type(first), type(third)] == [int, int]
    accepted = {submissions[0].id, submissions[2].id}
    assert stored(store) == (accepted, accepted)


async def test_a_submit_whose_bytes_are_gone_is_refused_alone(store: Store) -> None:
    submissions = [await store.submission() for _ in range(3)]
    chunk_of(submissions[1]).data = None  # as if the bytes had been written ahead and then lost

    outcomes = await submit_concurrently(store.submitter, submissions)

    assert [type(outcome) for outcome in outcomes] == [int, StoreUnavailable, int]
    accepted = {submissions[0].id, submissions[2].id}
    assert stored(store) == (accepted, accepted)


async def test_a_submit_whose_bytes_the_server_does_not_take_is_refused_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, first, spoiled, last = [await store.submission() for _ in range(4)]
    await store.submitter.write_upload(ahead, chunk_of(ahead))  # the batch does not write its bytes
    commits = store.store_client.commits
    send, upload = commits.send, upload_key(spoiled.id, 0)

    def send_spoiled(*commands: Command | bytes) -> asyncio.Future[list[Reply]]:
        # A time to live of 0 makes the server reply with an error.
        spoil = [(*it[:-1], 0) if isinstance(it, tuple) and it[:2] == ("SET", upload) else it for it in commands]
        return send(*spoil)

    monkeypatch.setattr(commits, "send", send_spoiled)
    outcomes = await submit_concurrently(store.submitter, [ahead, first, spoiled, last])

    assert [type(outcome) for outcome in outcomes] == [int, int, StoreUnavailable, int]
    accepted = {ahead.id, first.id, last.id}
    assert stored(store) == (accepted, accepted)


# -- Idempotency-Key


async def test_of_two_submits_with_one_key_in_a_batch_the_second_gets_the_job_of_the_first(store: Store) -> None:
    first, second = await keyed(store), await keyed(store)

    with counting_script_calls(store.redis) as counted:
        outcomes = await submit_concurrently(store.submitter, [first, second])

    assert counted.calls == 1
    assert isinstance(outcomes[0], int)
    assert outcomes[1] == ExistingJob(first.id, FINGERPRINT)
    assert stored(store) == ({first.id}, {first.id})
    assert store.redis.get(idempotency_key_name(OWNER, KEY)) == first.id
    assert store.stat(f"pending:{OWNER}") == 1


async def test_a_key_that_is_used_for_something_else_in_its_batch_is_refused(store: Store) -> None:
    first, other = await keyed(store), await keyed(store, b"g" * 16)

    outcomes = await submit_concurrently(store.submitter, [first, other])

    assert [type(outcome) for outcome in outcomes] == [int, IdempotencyKeyReused]
    assert stored(store) == ({first.id}, {first.id})


async def test_a_key_whose_job_is_opened_in_the_same_batch_is_in_progress(store: Store) -> None:
    opened, other = await keyed(store, b""), await keyed(store)
    opened.chunk = None

    outcomes = await submit_concurrently(store.submitter, [opened, other], open_seconds=60)

    assert isinstance(outcomes[0], int)
    assert isinstance(outcomes[1], IdempotencyInProgress)
    assert outcomes[1].extensions["job_id"] == to_text(opened.id)
    assert stored(store) == ({opened.id}, set())


async def test_a_key_is_an_owners_own_also_in_a_batch(store: Store) -> None:
    submissions = [await keyed(store), await keyed(store)]
    submissions[1].owner = "another"

    outcomes = await submit_concurrently(store.submitter, submissions)

    assert [type(outcome) for outcome in outcomes] == [int, int]


# -- queues, lists


async def test_submits_of_a_batch_land_in_their_own_queues_in_order(store: Store) -> None:
    submissions = [
        await store.submission(owner=owner, model=model, lane=lane)
        for _ in range(3)
        for owner in ("a", "b")
        for model in (MODEL, "other")
        for lane in Lane
    ]
    expected = defaultdict[str, list[bytes]](list)
    for it in submissions:
        expected[f"{keys.READY}{it.model}:{LANE_CODE[it.lane].decode()}:{it.owner}"].append(it.id)

    with counting_script_calls(store.redis) as counted:
        await submit_concurrently(store.submitter, submissions)

    assert counted.calls == 1
    queues = {queue.decode(): store.redis.lrange(queue, 0, -1) for queue in store.redis.keys(f"{keys.READY}*")}
    found = {
        queue: [ChunkRef.unpack(chunk_ref).job_id for chunk_ref in chunk_refs] for queue, chunk_refs in queues.items()
    }
    assert found == expected
    for model in (MODEL, "other"):
        for lane in LANE_CODE.values():
            rotation = store.redis.lrange(f"{keys.ROTATION}{model}:{lane.decode()}", 0, -1)
            assert sorted(rotation) == [b"a", b"b"], "each owner once"


async def test_jobs_of_a_batch_are_listed_newest_first(store: Store) -> None:
    submissions = [await store.submission(owner=("a", "b")[n % 2]) for n in range(20)]

    await submit_concurrently(store.submitter, submissions)

    for owner in ("a", "b"):
        listed, _ = await store.jobs.list(owner, before=None, limit=100, state=None)
        assert [job.id for job in listed] == [it.id for it in submissions[::-1] if it.owner == owner]


async def test_open_jobs_and_jobs_with_bytes_share_a_batch(store: Store) -> None:
    submissions = [await store.submission() for _ in range(4)]
    submissions[0].chunk = submissions[2].chunk = None

    await submit_concurrently(store.submitter, submissions, open_seconds=60)

    assert store.redis.zcard(keys.OPEN_DEADLINES) == 2
    whole = {submissions[1].id, submissions[3].id}
    assert {claimed.chunk_ref.job_id for claimed in store.claim().chunks} == whole


async def test_each_job_of_a_batch_has_its_own_bytes(store: Store) -> None:
    submissions = [await store.submission(b"image %d" % n) for n in range(20)]
    for n in (3, 11):  # written ahead: the batch does not write them
        await store.submitter.write_upload(submissions[n], chunk_of(submissions[n]))

    await submit_concurrently(store.submitter, submissions)

    for n, it in enumerate(submissions):
        assert store.redis.get(upload_key(it.id, 0)) == make_chunk([b"image %d" % n]).data


# -- canceled submitters


async def test_a_submitter_that_was_canceled_before_its_batch_was_sent_leaves_nothing(store: Store) -> None:
    submissions = [await store.submission() for _ in range(3)]
    async with blocking_commits(store.store_client, store.redis):
        tasks = [asyncio.create_task(store.submitter.enqueue(it)) for it in submissions]
        await asyncio.sleep(0)
        tasks[1].cancel()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [int, asyncio.CancelledError, int]
    accepted = {submissions[0].id, submissions[2].id}
    assert stored(store) == (accepted, accepted)
    assert store.stat(f"pending:{OWNER}") == 2


async def test_a_batch_whose_submitters_were_all_canceled_is_not_sent(store: Store) -> None:
    submissions = [await store.submission() for _ in range(3)]
    with counting_script_calls(store.redis) as counted:
        async with blocking_commits(store.store_client, store.redis):
            tasks = [asyncio.create_task(store.submitter.enqueue(it)) for it in submissions]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.store_client.check_writes()  # behind them on the same connection

    assert counted.calls == 0
    assert stored(store) == (set(), set())
    (outcome,) = await submit_concurrently(store.submitter, [await store.submission()])
    assert isinstance(outcome, int)
