"""A job's progress as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.requests import Request

from api.auth.keys import ApiKey
from api.presenters import JobPresenter
from api.results.stream_limit import ResponseStreams
from jobs.errors import JobExpired, JobNotFound
from jobs.records import Job
from jobs.store.for_api.job_reader import JobReader

END_ID = "end"
HEARTBEAT_SECONDS = 15  # the longest silence of a stream, so that proxies do not close it
_RETRY_MS = 2000  # after which an EventSource reconnects


async def follow_events(
    request: Request,
    job: Job,
    caller: ApiKey,
    last_event_id: str,
    *,
    reader: JobReader,
    presenter: JobPresenter,
    streams: ResponseStreams,
) -> AsyncGenerator[bytes]:
    """A `counts` event for each change since `last_event_id`, heartbeats in between, and `end` with the ended job.

    Raises:
        TooManyStreams: before the first event.
    """
    now = asyncio.get_running_loop().time
    with streams.follow(job.id, caller, request) as stream:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        last_sent = now()
        while True:
            view = await presenter.job(job)
            event_id = _counts_id(job)
            if event_id != last_event_id:
                yield _event("counts", event_id, {name: view[name] for name in ("status", "counts", "eta_seconds")})
                last_event_id, last_sent = event_id, now()
            if job.state.ended:
                yield _event("end", END_ID, view)
                return
            if not await stream.wait_for_change():
                return
            if now() - last_sent >= HEARTBEAT_SECONDS:
                yield b": still running\n\n"
                last_sent = now()
            try:
                job = await reader.get(job.id, job.owner)
            except (JobExpired, JobNotFound):  # it was deleted
                return


def _counts_id(job: Job) -> str:
    """The same for the same counts, so that a client that reconnects gets no event that it has seen."""
    return f"{job.total}-{job.succeeded}-{job.failed}-{job.state}"


def _event(kind: str, event_id: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\nid: {event_id}\ndata: {orjson.dumps(data).decode()}\n\n".encode()
