"""How submits are grouped into calls of the script, and the outcomes of a batch whose call fails."""

import asyncio
import signal

import pytest

from jobs.errors import QuotaExceeded, StoreUnavailable
from jobs.ids import to_text
from jobs.records import Lane
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.for_api.submission import Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.submit_batch import BATCH_SUBMITS_MAX
from jobs.store.job_hash import job_key
from tests.support.concurrent_submits import (
    blocking_commits,
    counting_script_calls,
    lose_next_reply,
    submit_concurrently,
)
from tests.support.processes import Valkey
from tests.support.store import MODEL, OWNER, Store, make_chunk, make_upload_budget
from tests.support.waiting import eventually


async def test_submits_that_arrive_while_the_connection_is_busy_share_a_call(store: Store) -> None:
    submissions = [await store.submission() for _ in range(BATCH_SUBMITS_MAX)]
    with counting_script_calls(store.redis) as counted:
        async with blocking_commits(store.store_client, store.redis):
            tasks = list[asyncio.Task[object]]()
            for it in submissions:
                tasks.append(asyncio.create_task(store.submitter.enqueue(it)))
                await asyncio.sleep(0)  # each submit arrives in another turn of the event loop
        await asyncio.gather(*tasks)

    assert counted.calls == 1
    assert store.stat("accepted") == BATCH_SUBMITS_MAX


async def test_a_lone_submit_does_not_wait_for_others(store: Store) -> None:
    with counting_script_calls(store.redis) as counted:
        for _ in range(3):
            await submit_concurrently(store.submitter, [await store.submission()])
    assert counted.calls == 3


async def test_a_call_is_for_a_limited_number_of_submits(store: Store) -> None:
    submissions = [await store.submission() for _ in range(3 * BATCH_SUBMITS_MAX + 1)]
    with counting_script_calls(store.redis) as counted:
        outcomes = await submit_concurrently(store.submitter, submissions)

    assert counted.calls == 4
    assert {type(outcome) for outcome in outcomes} == {int}
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == len(submissions)


async def test_submits_whose_bytes_are_too_many_for_one_batch_are_split(
    store_settings: StoreSettings, store: Store
) -> None:
    store_client = StoreClient(store_settings, timeout_seconds=2, group_submits_max=64, group_bytes_max=10_000)
    store_client.start()
    submitter = Submitter(store_client, make_upload_budget(store_settings), owner_pending_items_max=100)
    submissions = [await store.submission(bytes(size)) for size in (4000, 4000, 4000, 4000, 20_000, 4000, 4000)]
    await store_client.ready()

    with counting_script_calls(store.redis) as counted:
        outcomes = await submit_concurrently(submitter, submissions)
    await store_client.close()

    assert counted.calls == 4, "two and two submits, then the large one alone, then two"
    assert {type(outcome) for outcome in outcomes} == {int}
    assert store.stat("accepted") == 7


@pytest.mark.parametrize("submits_max", [1, 5])
async def test_a_call_is_for_no_more_submits_than_the_setting_allows(
    store_settings: StoreSettings, store: Store, submits_max: int
) -> None:
    store_client = StoreClient(
        store_settings, timeout_seconds=2, group_submits_max=submits_max, group_bytes_max=1 << 20
    )
    store_client.start()
    submitter = Submitter(store_client, make_upload_budget(store_settings), owner_pending_items_max=100)
    await store_client.ready()

    with counting_script_calls(store.redis) as counted:
        outcomes = await submit_concurrently(submitter, [await store.submission() for _ in range(10)])
    await store_client.close()

    assert counted.calls == 10 / submits_max
    assert {type(outcome) for outcome in outcomes} == {int}


async def test_a_whole_batch_is_sent_again_after_the_script_cache_was_emptied(store: Store) -> None:
    submissions = [await store.submission(b"image %d" % n) for n in range(20)]
    store.redis.script_flush()

    with counting_script_calls(store.redis) as counted:
        outcomes = await submit_concurrently(store.submitter, submissions)

    assert counted.calls == 2
    assert {type(outcome) for outcome in outcomes} == {int}
    assert (store.stat("accepted"), store.stat(f"pending:{OWNER}")) == (20, 20)
    chunk_refs = store.redis.lrange(f"{keys.READY}{MODEL}:i:{OWNER}", 0, -1)
    assert [chunk_ref[:16] for chunk_ref in chunk_refs] == [it.id for it in submissions], "each once"


async def test_a_refusal_stays_one_after_the_script_cache_was_emptied(store: Store) -> None:
    submitter = Submitter(store.store_client, store.upload_budget, owner_pending_items_max=2)
    submissions = [await store.submission() for _ in range(4)]
    store.redis.script_flush()

    outcomes = await submit_concurrently(submitter, submissions)

    assert [type(outcome) for outcome in outcomes] == [int, int, QuotaExceeded, QuotaExceeded]
    assert len(store.redis.keys(f"{keys.UPLOAD}*")) == 2


async def test_a_submit_that_cannot_be_sent_fails_with_its_batch_and_the_next_goes_on(store: Store) -> None:
    submissions = [await store.submission() for _ in range(3)]
    submissions[1].model = object()  # type: ignore[assignment]  # a bug in this process

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*map(store.submitter.enqueue, submissions), return_exceptions=True)

    assert all(isinstance(outcome, Exception) for outcome in outcomes), "no caller hangs"
    (outcome,) = await submit_concurrently(store.submitter, [await store.submission()])
    assert isinstance(outcome, int)


# -- the server is lost while a batch is in flight


async def submissions_of(submitter: Submitter, count: int) -> list[Submission]:
    ids = [await submitter.new_id(OWNER) for _ in range(count)]
    return [Submission(job_id, OWNER, MODEL, Lane.INTERACTIVE, 5, make_chunk([b"image"])) for job_id in ids]


@pytest.mark.parametrize("loss", ["frozen", "killed"])
async def test_all_of_a_batch_whose_server_is_lost_get_an_unknown_outcome(
    short_client: StoreClient, server: Valkey, loss: str
) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    submissions = await submissions_of(submitter, 5)
    server.signal(signal.SIGSTOP)
    asking = asyncio.create_task(submit_concurrently(submitter, submissions))
    if loss == "killed":
        await eventually(lambda: short_client.commits.is_busy, what="a batch that is sent")
        server.kill()

    outcomes = await asking

    for submission, outcome in zip(submissions, outcomes, strict=True):
        assert isinstance(outcome, StoreUnavailable)
        assert outcome.extensions == {"job_id": to_text(submission.id), "outcome": "unknown"}


async def test_submits_of_a_batch_whose_reply_was_lost_resolve_their_outcomes(
    short_client: StoreClient, server: Valkey
) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=3)
    submissions = await submissions_of(submitter, 5)
    lose_next_reply(short_client, error=OutcomeUnknown())
    outcomes = await submit_concurrently(submitter, submissions)

    store = JobReader(short_client)
    assert outcomes[:3] == [(await store.get(it.id, OWNER)).accepted_ms for it in submissions[:3]]
    for outcome in outcomes[3:]:
        assert isinstance(outcome, StoreUnavailable)
        assert outcome.extensions == {}, "it is known that the job was not accepted"


async def test_a_frozen_server_refuses_a_whole_batch_once_it_wakes(short_client: StoreClient, server: Valkey) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    submissions = await submissions_of(submitter, 5)
    server.signal(signal.SIGSTOP)
    await submit_concurrently(submitter, submissions)
    server.signal(signal.SIGCONT)

    await short_client.ready()
    jobs, _ = await JobReader(short_client).list(OWNER, before=None, limit=10, state=None)

    assert jobs == []
    with server.client as client:
        assert not any(client.exists(job_key(it.id)) for it in submissions)
        assert client.keys(f"{keys.UPLOAD}*") == []


async def test_submits_that_wait_behind_a_lost_server_are_reported_as_not_accepted(
    short_client: StoreClient, server: Valkey
) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=1000)
    submissions = await submissions_of(submitter, 4 * BATCH_SUBMITS_MAX)
    server.signal(signal.SIGSTOP)

    outcomes = await submit_concurrently(submitter, submissions)

    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    unknown = [isinstance(it, StoreUnavailable) and "outcome" in it.extensions for it in outcomes]
    assert unknown == [True] * 64 + [False] * 64, "one pipeline sends 64 submits"


async def test_later_submits_do_not_join_a_batch_that_was_never_sent(short_client: StoreClient, server: Valkey) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    ids = [await submitter.new_id(OWNER) for _ in range(2)]
    lose_next_reply(short_client, error=NotSent(), sent=False)
    with pytest.raises(StoreUnavailable):
        await submitter.enqueue(Submission(ids[0], OWNER, MODEL, Lane.INTERACTIVE, 5, make_chunk([b"image"])))
    async with asyncio.timeout(60):
        assert await submitter.enqueue(Submission(ids[1], OWNER, MODEL, Lane.INTERACTIVE, 5, make_chunk([b"image"])))
