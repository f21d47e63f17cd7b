"""A job's progress as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from api.services import Services
from jobs.errors import JobExpired, JobNotFound
from jobs.records import Job

END_ID = "end"
HEARTBEAT_SECONDS = 15  # the longest silence of a stream, so that proxies do not close it
_RETRY_MS = 2000  # when an EventSource that was cut off comes back


async def events(calls: Services, job: Job, seen: str) -> AsyncGenerator[bytes]:
    """`counts` where they differ from those of the event `seen`, heartbeats between, and `end` with the ended job.

    Raises:
        TooManyStreams: before the first event.
    """
    with calls.followed_streams.holding(job.id) as followed_streams:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        quiet_since = asyncio.get_running_loop().time()
        while True:
            view = await calls.presenter.job(job)
            number = _id(job)
            if number != seen:
                yield _event("counts", number, {name: view[name] for name in ("status", "counts", "eta_seconds")})
                seen, quiet_since = number, asyncio.get_running_loop().time()
            if job.state.ended:
                yield _event("end", END_ID, view)
                return
            if not await followed_streams.pause():
                return
            if asyncio.get_running_loop().time() - quiet_since >= HEARTBEAT_SECONDS:
                yield b": still running\n\n"
                quiet_since = asyncio.get_running_loop().time()
            try:
                job = await calls.store.get(job.id, job.owner)
            except (JobExpired, JobNotFound):  # it was deleted
                return


def _id(job: Job) -> str:
    """The same counts have the same id."""
    return f"{job.total}-{job.succeeded}-{job.failed}-{job.state}"


def _event(kind: str, number: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\nid: {number}\ndata: {orjson.dumps(data).decode()}\n\n".encode()
