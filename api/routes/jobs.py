"""`/v1/jobs`: submit, read, list, results, cancel, delete."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response, StreamingResponse

from api import schemas
from api.answers import answer
from api.auth import Calls, Owner
from api.direct import DirectRoute
from api.services import Services
from api.waiters import until_done
from jobs.errors import InvalidRequest, StoreUnavailable
from jobs.ids import to_text
from jobs.records import TOP_K_MAX, ItemState, Job, JobState, Lane
from jobs.settings import ModelName

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=DirectRoute)

POLL_AFTER_SECONDS = 1
_NDJSON = "application/x-ndjson"
_PREFER_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE | re.ASCII)

JobId = Annotated[
    bytes,
    Path(description="The job's id, as the submit answered it."),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="How many a page.")]


class _Query(BaseModel):
    """A parameter that is not known, or not yet, is refused: passed over, it would seem to work."""

    model_config = ConfigDict(extra="forbid")


class SubmitQuery(_Query):
    model: ModelName | None = Field(None, description="Which model; none: the default one.")
    top_k: int = Field(5, ge=1, le=TOP_K_MAX, description="How many classes an image.")
    lane: Lane = Field(Lane.INTERACTIVE, description="`bulk` yields to `interactive`.")


class JobsQuery(_Query):
    status: JobState | None = Field(None, description="Only jobs in this state; pages may be short.")
    limit: Limit = 100
    cursor: int | None = Field(None, ge=0, le=2**53, description="`next_cursor` of the page before.")


class JobQuery(_Query):
    wait: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Hold the answer until the job ends, or so many seconds; at most `WAIT_SECONDS_MAX` (30).",
    )


class ResultsQuery(_Query):
    limit: Limit = 100
    cursor: str | None = Field(
        None, pattern=r"^[0-9]{1,9}-[0-9]{1,9}-[0-9]{1,9}$", description="`next_cursor` of the page before."
    )


@router.post(
    "",
    status_code=202,
    summary="Submit images",
    response_model=schemas.JobResource,
    responses=schemas.responses(
        401, 408, 413, 415, 429, also={200: schemas.ENDED, 202: schemas.ACCEPTED, **schemas.SUBMIT_PROBLEMS}
    ),
    openapi_extra=schemas.UPLOAD,
)
async def submit(request: Request, owner: Owner, calls: Calls, query: Annotated[SubmitQuery, Query()]) -> Response:
    """One image as the body, or 1 to 64 files as multipart. `Prefer: wait=N` waits for the end, 30 s at most."""
    submission = await calls.intake.receive(request, owner=owner, model=query.model, lane=query.lane, top_k=query.top_k)
    wait = _preferred_wait_seconds(request, calls.settings.wait_seconds_max)
    if wait is None:
        return await _accepted(calls, await calls.intake.commit(submission))
    with calls.waiters.waiting_for(submission.id) as ended:
        job = await calls.intake.commit(submission)
        await until_done(ended, wait, request.receive)
    applied = {"Preference-Applied": f"wait={wait:g}"}
    with suppress(StoreUnavailable):  # the job stands all the same
        job = await calls.store.get(job.id, owner)
    if job.state.ended:
        return answer(await calls.views.job(job), headers={"Location": _path(job)} | applied)
    return await _accepted(calls, job, applied)


@router.get(
    "",
    summary="List your jobs, newest first",
    response_model=schemas.JobPage,
    responses=schemas.responses(401, 422, 503),
)
async def list_jobs(owner: Owner, calls: Calls, query: Annotated[JobsQuery, Query()]) -> Response:
    jobs, next_cursor = await calls.store.list(owner, before=query.cursor, limit=query.limit, state=query.status)
    views = [await calls.views.job(job) for job in jobs]
    return answer({"jobs": views, "next_cursor": None if next_cursor is None else str(next_cursor)})


@router.get(
    "/{job_id}",
    summary="A job as it stands",
    response_model=schemas.JobResource,
    responses=schemas.responses(401, 404, 410, 422, 503),
)
async def get_job(
    request: Request, owner: Owner, job_id: JobId, calls: Calls, query: Annotated[JobQuery, Query()]
) -> Response:
    wait = query.wait
    if wait > calls.settings.wait_seconds_max:
        raise InvalidRequest(f"wait: at most {calls.settings.wait_seconds_max:g} seconds")
    job = await calls.store.get(job_id, owner)
    if wait and not job.state.ended:
        with calls.waiters.waiting_for(job_id) as ended:
            job = await calls.store.get(job_id, owner)
            if not job.state.ended:
                await until_done(ended, wait, request.receive)
                job = await calls.store.get(job_id, owner)
    return answer(await calls.views.job(job))


@router.get(
    "/{job_id}/results",
    summary="A job's images with their classes, in order",
    response_model=schemas.ItemPage,
    responses=schemas.responses(
        401, 404, 410, 422, 503, also={200: {"content": {_NDJSON: {"schema": {"type": "string"}}}}}
    ),
)
async def results(
    request: Request, owner: Owner, job_id: JobId, calls: Calls, query: Annotated[ResultsQuery, Query()]
) -> Response:
    """JSON pages, pending images included; with `Accept: application/x-ndjson` all that have ended, a line each."""
    job = await calls.store.get(job_id, owner)
    if _NDJSON in request.headers.get("accept", ""):
        return StreamingResponse(_lines(calls, job), media_type=_NDJSON)
    chunk, place, index = map(int, (query.cursor or "0-0-0").split("-"))
    views, next_cursor = list[dict[str, Any]](), None
    async for number, at, item in calls.store.items(job, chunk=chunk, place=place, index=index):
        if len(views) == query.limit:
            next_cursor = f"{number}-{at}-{item.index}"
            break
        views.append(await calls.views.item(item))
    return answer({"items": views, "next_cursor": next_cursor})


@router.post(
    "/{job_id}/cancel",
    summary="Cancel what has not ended",
    response_model=schemas.JobResource,
    responses=schemas.responses(401, 404, 410, 503),
)
async def cancel(owner: Owner, job_id: JobId, calls: Calls) -> Response:
    """A job that has ended stays as it is."""
    await calls.store.cancel(job_id, owner)
    return answer(await calls.views.job(await calls.store.get(job_id, owner)))


@router.delete(
    "/{job_id}", status_code=204, summary="Forget a job and its data", responses=schemas.responses(401, 404, 410, 503)
)
async def delete(owner: Owner, job_id: JobId, calls: Calls) -> Response:
    await calls.store.delete(job_id, owner)
    return Response(status_code=204)


async def _accepted(calls: Services, job: Job, headers: dict[str, str] | None = None) -> Response:
    polling = {"Location": _path(job), "Retry-After": str(POLL_AFTER_SECONDS)}
    return answer(await calls.views.job(job), 202, polling | (headers or {}))


async def _lines(calls: Services, job: Job) -> AsyncIterator[bytes]:
    async for _, _, item in calls.store.items(job):
        if item.state is not ItemState.PENDING:
            yield orjson.dumps(await calls.views.item(item)) + b"\n"


def _preferred_wait_seconds(request: Request, most: float) -> float | None:
    """N of `Prefer: wait=N` (RFC 7240), at most `most`. What makes no sense is passed over, as that RFC has it."""
    found = _PREFER_WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(float(found[1]), most) if found else None


def _path(job: Job) -> str:
    return f"/v1/jobs/{to_text(job.id)}"
