"""`/v1/jobs`: submit, read, list, add parts, seal, cancel, retry, delete."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute, StrictQuery
from api.asgi.responses import json_response
from api.routes.parameters import AppServices, Caller, JobId, Limit, Owner
from api.services import Services
from api.submissions.digests import key_digest
from api.submissions.result import SubmitResult
from jobs.errors import InvalidRequest
from jobs.records import TOP_K_MAX, JobState, Lane
from jobs.settings import ModelRef
from jobs.webhooks import check_webhook

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=EndpointRoute)

POLL_AFTER_SECONDS = 1
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_PREFER_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE | re.ASCII)


class SubmitQuery(StrictQuery):
    model: ModelRef | None = Field(
        None, description="A model's name, or name@version for one version of it. Default: the default model."
    )
    top_k: int = Field(5, ge=1, le=TOP_K_MAX, description="How many classes to return for an image.")
    lane: Lane | None = Field(
        None, description="`bulk` yields to `interactive`. Default: interactive for up to 64 images, bulk for more."
    )
    webhook_url: str | None = Field(None, max_length=2048, description="A URL that is called when the job has ended.")
    open: bool = Field(
        False,
        description="Create a job without images, which accepts parts until it is sealed. The request has no body.",
    )


class JobsQuery(StrictQuery):
    status: JobState | None = Field(
        None, description="Only jobs in this state. A page may have fewer than `limit` jobs."
    )
    idempotency_key: str | None = Field(None, description="Only the job that was created with this Idempotency-Key.")
    limit: Limit = 100
    cursor: int | None = Field(None, ge=0, le=2**53, description="`next_cursor` of the previous page.")


class JobQuery(StrictQuery):
    wait: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds to wait for the end of the job before answering; at most `WAIT_SECONDS_MAX` (30).",
    )


@router.post(
    "",
    status_code=202,
    summary="Submit images",
    response_model=schemas.JobResource,
    responses=schemas.responses(
        401, 403, 408, 413, 415, 429, also={200: schemas.ENDED, 202: schemas.ACCEPTED, **schemas.SUBMIT_PROBLEMS}
    ),
    openapi_extra=schemas.UPLOAD,
)
async def submit_job(
    request: Request, caller: Caller, services: AppServices, query: Annotated[SubmitQuery, Query()]
) -> Response:
    """The body is one image, or many as multipart, tar, zip, or JSON with URLs. It is read as it arrives.

    Images are JPEG, PNG, WebP, GIF or BMP, and AVIF, HEIC or TIFF unless the server turns them off.

    `Prefer: wait=N` waits for the end of the job, 30 s at most. A repeat with the same `Idempotency-Key` returns the
    first job.
    """
    if query.webhook_url:
        check_webhook(query.webhook_url, caller.owner, services.settings)
    submission = await services.submissions.prepare(
        caller,
        query.model,
        top_k=query.top_k,
        webhook_url=query.webhook_url or "",
        key=_idempotency_key(request),
    )
    if query.open:
        return await _accepted(services, await services.open_jobs.open(submission, query.lane))
    wait = _preferred_wait_seconds(request, services.settings.wait_seconds_max)
    if wait is None:
        return await _accepted(services, await services.submissions.submit(request, submission, lane=query.lane))
    result = await services.submissions.submit_and_wait(request, submission, wait, lane=query.lane)
    return await _accepted(services, result, {"Preference-Applied": f"wait={wait:g}"})


@router.get(
    "/{job_id}",
    summary="The current state of a job",
    response_model=schemas.JobResource,
    responses=schemas.responses(401, 404, 410, 422, 503),
)
async def get_job(
    request: Request, owner: Owner, job_id: JobId, services: AppServices, query: Annotated[JobQuery, Query()]
) -> Response:
    wait = query.wait
    if wait > services.settings.wait_seconds_max:
        raise InvalidRequest(f"wait: at most {services.settings.wait_seconds_max:g} seconds")
    job = await services.reader.get(job_id, owner)
    if wait and not job.state.ended:
        job = await services.completions.wait_until_ended(job, wait, request)
    return json_response(await services.presenter.job(job))


@router.get(
    "",
    summary="List your jobs, newest first",
    response_model=schemas.JobPage,
    responses=schemas.responses(401, 422, 503),
)
async def list_jobs(owner: Owner, services: AppServices, query: Annotated[JobsQuery, Query()]) -> Response:
    if query.idempotency_key is not None:
        job = await services.reader.by_idempotency_key(owner, key_digest(query.idempotency_key))
        found = [job] if job is not None and query.status in (None, job.state) else []
        return json_response({"jobs": [await services.presenter.job(job) for job in found], "next_cursor": None})
    jobs, next_cursor = await services.reader.list(owner, before=query.cursor, limit=query.limit, state=query.status)
    views = [await services.presenter.job(job) for job in jobs]
    return json_response({"jobs": views, "next_cursor": None if next_cursor is None else str(next_cursor)})


@router.post(
    "/{job_id}/items",
    status_code=202,
    summary="Add a part to an open job",
    response_model=schemas.JobResource,
    responses=schemas.responses(
        401, 403, 404, 408, 410, 413, 415, 429, also={**schemas.SUBMIT_PROBLEMS, 409: schemas.PART_CONFLICTS}
    ),
    openapi_extra=schemas.PART,
)
async def add_items(request: Request, caller: Caller, job_id: JobId, services: AppServices) -> Response:
    """The body has one of the formats of a submit.

    A part that was interrupted can be sent again from its beginning with the same `Idempotency-Key`: no image is added
    twice.
    """
    job = await services.reader.get(job_id, caller.owner)
    return await _accepted(services, await services.open_jobs.add(request, job, caller, _idempotency_key(request)))


@router.post(
    "/{job_id}/seal",
    summary="Seal an open job: it accepts no more parts",
    response_model=schemas.JobResource,
    responses=schemas.responses(401, 403, 404, 410, 503, also={409: "`job_ended` or `job_empty`"}),
)
async def seal_job(owner: Owner, job_id: JobId, services: AppServices) -> Response:
    """Has no effect on a sealed job."""
    await services.reader.get(job_id, owner)
    await services.open_jobs.seal(job_id, owner)
    return json_response(await services.presenter.job(await services.reader.get(job_id, owner)))


@router.post(
    "/{job_id}/cancel",
    summary="Cancel the images that have not ended",
    response_model=schemas.JobResource,
    responses=schemas.responses(401, 403, 404, 410, 503),
)
async def cancel_job(owner: Owner, job_id: JobId, services: AppServices) -> Response:
    """Has no effect on a job that has ended."""
    await services.reader.cancel(job_id, owner)
    return json_response(await services.presenter.job(await services.reader.get(job_id, owner)))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Retry the failed images of a job as a new job",
    response_model=schemas.JobResource,
    responses=schemas.responses(
        401, 403, 404, 410, 429, also={**schemas.SUBMIT_PROBLEMS, 409: schemas.RETRY_CONFLICTS}
    ),
    openapi_extra=schemas.RETRY,
)
async def retry_job(request: Request, caller: Caller, job_id: JobId, services: AppServices) -> Response:
    """Images whose failure may be temporary, such as a crash or a timeout, and whose bytes are stored with the job."""
    job = await services.reader.get(job_id, caller.owner)
    return await _accepted(services, await services.submissions.retry(job, caller, _idempotency_key(request)))


@router.delete(
    "/{job_id}",
    status_code=204,
    summary="Delete a job and its data",
    responses=schemas.responses(401, 403, 404, 410, 503),
)
async def delete_job(owner: Owner, job_id: JobId, services: AppServices) -> Response:
    await services.reader.delete(job_id, owner)
    return Response(status_code=204)


async def _accepted(services: Services, result: SubmitResult, headers: dict[str, str] | None = None) -> Response:
    """202; or 200 if the client asked to wait and the job has ended."""
    job = result.job
    view = await services.presenter.job(job)
    headers = {"Location": view["links"]["self"]} | (headers or {})
    if result.replayed:
        headers["Idempotency-Replayed"] = "true"
    if job.state.ended and "Preference-Applied" in headers:
        return json_response(view, headers=headers)
    return json_response(view, 202, headers | {"Retry-After": str(POLL_AFTER_SECONDS)})


def _idempotency_key(request: Request) -> str:
    """The request's Idempotency-Key, or "" without one. Raises InvalidRequest if it is malformed."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key: 1 to 255 printable ASCII characters.")
    return key


def _preferred_wait_seconds(request: Request, seconds_max: float) -> float | None:
    """N of `Prefer: wait=N` (RFC 7240), at most `seconds_max`. Malformed preferences are ignored, as the RFC says."""
    if "prefer" not in request.headers:
        return None
    found = _PREFER_WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(float(found[1]), seconds_max) if found else None
