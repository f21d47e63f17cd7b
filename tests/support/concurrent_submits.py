"""Submits that come at once, and how many calls of the script they take."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import redis

from jobs.errors import DarkroomError
from jobs.store.client import StoreClient
from jobs.store.submit import ExistingJob, Submission, Submitter
from tests.support.waiting import eventually

_GATE = "gate"


async def submit_concurrently(
    submitter: Submitter, submissions: Sequence[Submission], *, open_seconds: float = 0
) -> list[int | ExistingJob | DarkroomError]:
    """What came of each of the submissions, which were all made in one turn of the loop."""

    async def outcome(submission: Submission) -> int | ExistingJob | DarkroomError:
        try:
            return await submitter.enqueue(submission, open_seconds=open_seconds)
        except DarkroomError as error:
            return error

    async with asyncio.timeout(20):
        return await asyncio.gather(*map(outcome, submissions))


@asynccontextmanager
async def blocking_commits(store_client: StoreClient, client: "redis.Redis[bytes]") -> AsyncIterator[None]:
    """Keep a pipeline in flight on the connection for submits: what comes meanwhile waits for the next one."""
    held = asyncio.create_task(store_client.commits.execute(("BLPOP", _GATE, 0)))
    await eventually(lambda: client.info("clients")["blocked_clients"], what="a connection that is busy")
    try:
        yield
    finally:
        client.rpush(_GATE, 1)
        await held


@dataclass
class ScriptCalls:
    calls: int = -1


@contextmanager
def counting_script_calls(client: "redis.Redis[bytes]") -> Iterator[ScriptCalls]:
    """How often scripts are called in here; told at its end."""
    client.config_resetstat()
    counted = ScriptCalls()
    yield counted
    counted.calls = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
