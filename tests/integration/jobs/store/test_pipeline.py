import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from jobs.errors import StoreUnavailable
from jobs.records import JobState, Lane
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.pipeline import PipelinedConnection
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.for_api.submission import Chunk, Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.redis_url import address_of
from tests.integration.jobs.store.conftest import TIMEOUT_SECONDS
from tests.support.concurrent_submits import lose_next_reply
from tests.support.processes import Valkey
from tests.support.store import MODEL, OWNER, Store, make_upload_budget


@pytest.fixture
async def connection(server: Valkey) -> AsyncIterator[PipelinedConnection]:
    connection = PipelinedConnection(address_of(server.url), timeout_seconds=TIMEOUT_SECONDS)
    connection.start()
    yield connection
    await connection.close()


def submission(job_id: bytes) -> Submission:
    return Submission(job_id, OWNER, MODEL, Lane.INTERACTIVE, 5, Chunk([None], 9, b"\x05\x00\x00\x00image"))


async def test_callers_get_their_own_replies(connection: PipelinedConnection) -> None:
    await connection.execute(("SET", "counter", 0))
    replies = await asyncio.gather(*(connection.execute(("ECHO", n), ("INCR", "counter")) for n in range(200)))

    assert [int(echo) for echo, _ in replies] == list(range(200))
    assert sorted(count for _, count in replies) == list(range(1, 201))


async def test_callers_that_arrive_while_a_group_is_in_flight_share_the_next(
    connection: PipelinedConnection, server: Valkey
) -> None:
    await connection.execute(("PING",))
    with server.client as client:
        before = client.info("stats")["total_reads_processed"]
        await asyncio.gather(*(connection.execute(("PING",)) for _ in range(64)))
        reads = client.info("stats")["total_reads_processed"] - before
    assert reads <= 4, "64 callers in one or two reads by the server, and two reads for INFO"


async def test_a_canceled_caller_is_left_out_of_the_next_group(connection: PipelinedConnection) -> None:
    await connection.execute(("PING",))
    gone = asyncio.create_task(connection.execute(("SET", "gone", 1)))
    asyncio.get_running_loop().call_soon(gone.cancel)
    others = [asyncio.create_task(connection.execute(("SET", f"here{n}", 1))) for n in range(3)]
    # The first task to run has not yet written: all four wait in one group.
    await asyncio.gather(*others)
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await connection.execute(("MGET", "gone", "here0", "here1", "here2")) == [[None, b"1", b"1", b"1"]]


async def test_errors_of_the_server_are_replies(connection: PipelinedConnection) -> None:
    error, pong = await connection.execute(("NO-SUCH-COMMAND",), ("PING",))
    assert "unknown command" in str(error)
    assert pong == "PONG" or pong == b"PONG"


async def test_without_a_server_nothing_is_sent_and_the_next_caller_gets_a_new_connection(
    connection: PipelinedConnection, server: Valkey
) -> None:
    await connection.execute(("PING",))
    server.kill()
    with pytest.raises((NotSent, OutcomeUnknown)):
        await connection.execute(("PING",))
    with pytest.raises(NotSent):
        await connection.execute(("PING",))

    server.start()
    await connection.execute(("PING",))


async def test_a_server_that_does_not_reply_leaves_the_outcome_unknown(
    connection: PipelinedConnection, server: Valkey
) -> None:
    await connection.execute(("PING",))
    server.signal(signal.SIGSTOP)
    with pytest.raises(OutcomeUnknown):
        await connection.execute(("PING",))
    server.signal(signal.SIGCONT)
    await connection.execute(("PING",))


async def test_callers_do_not_queue_up_behind_a_server_that_does_not_answer(
    connection: PipelinedConnection, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.execute(("PING",))
    server.signal(signal.SIGSTOP)
    calls = [asyncio.create_task(connection.execute(("PING",))) for _ in range(1000)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(10):  # turns of the event loop: no further timeout passes
        await asyncio.sleep(0)
    assert all(call.done() for call in calls), "one timeout for all callers, not one for each group"
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 64 + [NotSent] * 936
    assert len(caplog.records) == 1, "an outage is one line in the log"


async def test_callers_get_an_error_when_the_connection_is_closed(server: Valkey) -> None:
    connection = PipelinedConnection(address_of(server.url), timeout_seconds=5)
    waiting = asyncio.create_task(connection.execute(("PING",)))
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(NotSent):
        await waiting


async def test_a_cut_connection_does_not_lose_a_later_submit(short_client: StoreClient, server: Valkey) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    with server.client as client:
        client.client_kill_filter(_type="normal", skipme=True)
    for _ in range(2):
        try:
            await submitter.enqueue(submission(await submitter.new_id(OWNER)))
            break
        except StoreUnavailable:
            continue
    jobs, _ = await JobReader(short_client).list(OWNER, before=None, limit=10, state=None)
    assert [job.state for job in jobs] == [JobState.QUEUED]


async def test_a_submit_whose_reply_was_lost_is_found_by_reading(short_client: StoreClient, server: Valkey) -> None:
    """The connection breaks after the script has run and before its reply is read."""
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    job = submission(await submitter.new_id(OWNER))
    lose_next_reply(short_client, error=OutcomeUnknown())

    accepted_ms = await submitter.enqueue(job)

    found = await JobReader(short_client).get(job.id, OWNER)
    assert found.accepted_ms == accepted_ms


async def test_a_submit_that_never_ran_is_reported_as_not_accepted(short_client: StoreClient, server: Valkey) -> None:
    """The commands are lost before they reach the server; past the deadline the script refuses them."""
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    job = submission(await submitter.new_id(OWNER))

    lose_next_reply(short_client, error=OutcomeUnknown(), sent=False)
    with pytest.raises(StoreUnavailable) as raised:
        await submitter.enqueue(job)
    assert raised.value.extensions == {}


async def test_a_frozen_server_refuses_the_submit_once_it_wakes(short_client: StoreClient, server: Valkey) -> None:
    submitter = Submitter(short_client, make_upload_budget(short_client.settings), owner_pending_items_max=10)
    job = submission(await submitter.new_id(OWNER))
    server.signal(signal.SIGSTOP)

    with pytest.raises(StoreUnavailable) as raised:
        await submitter.enqueue(job)
    assert raised.value.extensions["outcome"] == "unknown"
    assert raised.value.extensions["job_id"]

    server.signal(signal.SIGCONT)
    jobs, _ = await JobReader(short_client).list(OWNER, before=None, limit=10, state=None)
    assert jobs == [], "past its deadline the script refuses"
    with server.client as client:
        assert client.dbsize() == 1, "only the signing key is stored"


async def test_a_wrong_password_fails_without_an_endless_wait(server: Valkey, store: Store) -> None:
    with server.client as client:
        client.config_set("requirepass", "right")
        wrong = PipelinedConnection(address_of(f"{server.url}&password=wrong"), timeout_seconds=TIMEOUT_SECONDS)
        wrong.start()
        with pytest.raises(NotSent):
            await wrong.execute(("PING",))
        await wrong.close()


async def test_a_login_that_is_cut_off_leaves_no_warning_of_asyncio(
    server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_connect(execute: Callable[..., Awaitable[list[Any]]]) -> None:
        await execute(("PING",))

    connection = PipelinedConnection(address_of(server.url), timeout_seconds=TIMEOUT_SECONDS, on_connect=on_connect)
    connection.start()
    server.signal(signal.SIGSTOP)
    with pytest.raises(NotSent):
        await connection.execute(("PING",))
    server.kill()
    await connection.close()
    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text
