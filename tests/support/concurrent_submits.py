"""Concurrent submits, and the number of script calls that they take."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import redis

from jobs.errors import DarkroomError
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.submission import ExistingJob, Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.wire import Command, Reply
from tests.support.waiting import eventually

_GATE = "gate"


async def submit_concurrently(
    submitter: Submitter, submissions: Sequence[Submission], *, open_seconds: float = 0
) -> list[int | ExistingJob | DarkroomError]:
    """The outcome of each submission. All are submitted in one turn of the event loop."""

    async def outcome(submission: Submission) -> int | ExistingJob | DarkroomError:
        try:
            return await submitter.enqueue(submission, open_seconds=open_seconds)
        except DarkroomError as error:
            return error

    async with asyncio.timeout(20):
        return await asyncio.gather(*map(outcome, submissions))


@asynccontextmanager
async def blocking_commits(store_client: StoreClient, client: "redis.Redis[bytes]") -> AsyncIterator[None]:
    """Keep a pipeline in flight on the connection for submits: later submits wait for the next one."""
    blocking = asyncio.create_task(store_client.commits.execute(("BLPOP", _GATE, 0)))
    await eventually(lambda: client.info("clients")["blocked_clients"], what="a busy connection")
    try:
        yield
    finally:
        client.rpush(_GATE, 1)
        await blocking


def lose_next_reply(store_client: StoreClient, *, error: Exception, sent: bool = True) -> None:
    """Let the next commands on the connection for submits raise the error, after they have run if `sent`."""
    commits = store_client.commits
    send = commits.send

    def lose(*commands: Command | bytes) -> asyncio.Future[list[Reply]]:
        async def lost() -> list[Reply]:
            if sent:
                await send(*commands)
            raise error

        commits.send = send  # type: ignore[method-assign]  # later commands get their replies
        return asyncio.ensure_future(lost())

    commits.send = lose  # type: ignore[method-assign]


@dataclass
class ScriptCalls:
    calls: int = -1


@contextmanager
def counting_script_calls(client: "redis.Redis[bytes]") -> Iterator[ScriptCalls]:
    """Counts the calls of scripts. The count is set when the context ends."""
    client.config_resetstat()
    counted = ScriptCalls()
    yield counted
    counted.calls = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
