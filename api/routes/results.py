"""`/v1/jobs/{id}/results` and `/v1/jobs/{id}/events`: a job's results and progress, also while it runs."""

import logging
import zlib
from asyncio import to_thread
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from api import schemas
from api.asgi.endpoint import EndpointRoute, StrictQuery
from api.asgi.request_id import IS_HEAD, log_fields
from api.asgi.responses import json_response
from api.asgi.uvicorn_protocol import cut_off
from api.auth.keys import ApiKey
from api.results.accept import preferred, takes_gzip
from api.results.events import END_ID, follow_events
from api.results.export import ResultLines
from api.results.line_formats import Csv, LineFormat, Ndjson
from api.results.stream_limit import STREAMED_ITEMS_MIN
from api.routes.parameters import AppServices, Caller, JobId, Limit
from api.services import Services
from jobs.errors import DarkroomError, InvalidRequest
from jobs.ids import to_text
from jobs.records import ItemState, Job

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=EndpointRoute)

_NDJSON, _CSV = "application/x-ndjson", "text/csv"
_SSE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_VARY = {"Vary": "Accept, Accept-Encoding"}
_GZIP_LEVEL, _GZIP_WBITS = 4, 31
_FILTERED_CHUNKS_MAX = 256  # read for one page, so that a filter that matches few items does not delay other requests


_NDJSON_EXAMPLE = '{"index":0,"name":"shirt.png","status":"succeeded","class":"Shirt","confidence":0.648812, …}\n'
_CSV_EXAMPLE = (
    '"index","name","status","class","confidence","model","error_code","error_detail","warnings"\r\n'
    '"0","shirt.png","succeeded","Shirt","0.648812","fmnist-cnn@2","","",""\r\n'
)
_EVENTS_EXAMPLE = (
    'event: counts\nid: 1-0-0-queued\ndata: {"status":"queued","counts":{"total":1, …},"eta_seconds":null}\n\n'
)


class Format(StrEnum):
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


_FORMATS = {"application/json": Format.JSON, _NDJSON: Format.NDJSON, _CSV: Format.CSV}


class ResultsQuery(StrictQuery):
    limit: Limit = 100
    cursor: str | None = Field(
        None, pattern=r"^[0-9]{1,9}-[0-9]{1,9}-[0-9]{1,9}$", description="`next_cursor` of the previous page."
    )
    status: ItemState | None = Field(
        None, description="Only items in this state. A page may have fewer than `limit` items."
    )
    format: Format | None = Field(None, description="Overrides the `Accept` header.")
    bom: bool = Field(False, description="CSV: begin with a byte order mark, by which Excel knows UTF-8.")
    follow: bool = Field(False, description="NDJSON and CSV: also stream pending items, in order, until the job ends.")
    start: int = Field(
        0,
        ge=0,
        le=2**31,
        alias="from",
        description="NDJSON and CSV: the index of the first image, to go on where a stream broke; no CSV head then.",
    )


@router.get(
    "/{job_id}/results",
    summary="A job's images with their classes, in order",
    response_model=schemas.ItemPage,
    responses=schemas.responses(
        401,
        404,
        410,
        422,
        also={
            200: {
                "content": {
                    _NDJSON: {"schema": {"type": "string"}, "example": _NDJSON_EXAMPLE},
                    _CSV: {"schema": {"type": "string"}, "example": _CSV_EXAMPLE},
                }
            },
            503: "`store_unavailable`, `too_many_streams` or `stream_interrupted`, with `Retry-After`",
        },
    ),
)
async def get_results(
    request: Request, caller: Caller, job_id: JobId, services: AppServices, query: Annotated[ResultsQuery, Query()]
) -> Response:
    """JSON: pages of all images, pending ones included. NDJSON and CSV: a line for each image that has ended.

    A response of lines that ends in order is complete; if it cannot be completed, its connection is broken.
    """
    job = await services.reader.get(job_id, caller.owner)
    format_ = query.format or _FORMATS[preferred(request.headers, _FORMATS)]
    if query.bom and format_ is not Format.CSV:
        raise InvalidRequest("bom: only CSV has a byte order mark; add ?format=csv.")
    if format_ is Format.JSON:
        if query.follow:
            raise InvalidRequest("follow: only NDJSON and CSV can be followed; add ?format=ndjson.")
        if query.start:
            raise InvalidRequest(
                "from: only NDJSON and CSV; for pages, send ?cursor= with the next_cursor of the last one."
            )
        return _gzip_page(request, json_response(await _page(services, job, query), headers=_VARY))
    line_format: LineFormat = Csv(bom=query.bom) if format_ is Format.CSV else Ndjson()
    lines = ResultLines(services.reader, services.model_registry, line_format, query.status)
    headers, media_type = dict(_VARY), _NDJSON
    if format_ is Format.CSV:
        media_type = "text/csv; charset=utf-8"
        headers["Content-Disposition"] = f'attachment; filename="{to_text(job_id)}.csv"'
    if query.follow and not job.state.ended:
        stream = _followed(request, services, job, caller, lines, query.start)
    else:
        stream = lines.of(job, start=query.start)
        if job.total >= STREAMED_ITEMS_MIN:
            stream = _counted(services, caller, stream)
    if takes_gzip(request.headers):
        stream = _gzip(stream)
        headers["Content-Encoding"] = "gzip"
    return await _start_stream(request, stream, media_type, headers)


@router.get(
    "/{job_id}/events",
    summary="A job's counts as they change, as server-sent events",
    response_class=Response,  # FastAPI's default would be described as JSON
    responses=schemas.responses(
        401,
        404,
        410,
        also={
            200: {
                "description": "`counts` events as they change, then `end`",
                "content": {"text/event-stream": {"example": _EVENTS_EXAMPLE}},
            },
            204: {"description": "`Last-Event-ID` is that of the `end` event: nothing follows"},
            503: "`store_unavailable` or `too_many_streams`, with `Retry-After`",
        },
    ),
)
async def get_events(request: Request, caller: Caller, job_id: JobId, services: AppServices) -> Response:
    """Ends with the job. An `EventSource` that reconnects continues after the last event it has received."""
    last_event_id = request.headers.get("last-event-id", "")
    job = await services.reader.get(job_id, caller.owner)
    if last_event_id == END_ID and job.state.ended:
        return Response(status_code=204)
    stream = follow_events(
        request,
        job,
        caller,
        last_event_id,
        reader=services.reader,
        presenter=services.presenter,
        streams=services.response_streams,
    )
    return await _start_stream(request, stream, "text/event-stream", _SSE)


async def _page(services: Services, job: Job, query: ResultsQuery) -> dict[str, Any]:
    chunk, place, index = map(int, (query.cursor or "0-0-0").split("-"))
    views, next_cursor = list[dict[str, Any]](), None
    async for number, at, item in services.reader.items(job, chunk=chunk, place=place, index=index):
        if len(views) == query.limit or number >= chunk + _FILTERED_CHUNKS_MAX:
            next_cursor = f"{number}-{at}-{item.index}"
            break
        if query.status in (None, item.state):
            views.append(await services.presenter.item(item))
    return {"items": views, "next_cursor": next_cursor}


async def _followed(
    request: Request, services: Services, job: Job, caller: ApiKey, lines: ResultLines, start: int
) -> AsyncGenerator[bytes]:
    with services.response_streams.follow(job.id, caller, request) as stream:
        async for data in lines.of(job, stream.wait_for_change, start=start):
            yield data


async def _counted(services: Services, caller: ApiKey, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    with services.response_streams.counted(caller.owner):
        async with aclosing(stream):
            async for data in stream:
                yield data


async def _start_stream(
    request: Request, stream: AsyncGenerator[bytes], media_type: str, headers: Mapping[str, str]
) -> Response:
    """A streamed response. Its first piece is read here: an error before it is still answered with a problem."""
    first = b""
    if IS_HEAD in request.scope:
        await stream.aclose()
    else:
        first = await anext(stream, b"")
    return StreamingResponse(_with_first(request, first, stream), media_type=media_type, headers=headers)


async def _with_first(request: Request, first: bytes, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(stream):
        yield first
        try:
            async for data in stream:
                yield data
        except DarkroomError as error:
            log.info("a stream breaks off: %s", error, extra=log_fields(request.scope))
            cut_off(request.scope)


async def _gzip(stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Compress a stream so that a client can read each piece as soon as it arrives."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)

    def pack(data: bytes) -> bytes:
        return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)

    async with aclosing(stream):
        async for data in stream:
            yield await to_thread(pack, data)
    yield packer.flush()


def _gzip_page(request: Request, page: Response) -> Response:
    if takes_gzip(request.headers):
        page.body = zlib.compress(page.body, _GZIP_LEVEL, _GZIP_WBITS)
        page.headers["Content-Length"] = str(len(page.body))
        page.headers["Content-Encoding"] = "gzip"
    return page
