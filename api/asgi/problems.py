"""Errors as `application/problem+json` (RFC 9457), each with a stable `code`."""

import logging
import uuid

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from jobs.errors import DarkroomError, InvalidRequest, QueueFull

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_CODES = {404: "not_found", 405: "method_not_allowed"}


class Problem(BaseModel):
    """RFC 9457, with a stable `code`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "There is no such job",
                "status": 404,
                "code": "job_not_found",
                "detail": "There is no such job",
            }
        }
    )
    type: str
    title: str
    status: int
    code: str
    detail: str


def install(app: FastAPI, retry_after_seconds: int) -> None:
    """Turn every exception of a route into a problem."""

    async def darkroom_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, DarkroomError)
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        if isinstance(error, QueueFull):
            headers["Retry-After"] = str(request.state.services.drain_rate.retry_after(error))
        elif error.status in (429, 503):
            headers["Retry-After"] = str(retry_after_seconds)
        return problem(error.status, error.code, error.title, error.detail, headers, **error.extensions)

    async def invalid_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        details = (f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors())
        return await darkroom_error(_, InvalidRequest("; ".join(details)))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "http_error")
        headers = {"Allow": _allowed(request)} if error.status_code == 405 else dict(error.headers or {})
        return problem(error.status_code, code, error.detail, error.detail, headers)

    async def unknown(_: Request, error: Exception) -> Response:
        number = uuid.uuid4().hex[:12]
        log.error("error %s", number, exc_info=error)
        return problem(500, "internal_error", "Something went wrong here", f"It is in the log as {number}.", {})

    app.add_exception_handler(DarkroomError, darkroom_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unknown)


def _allowed(request: Request) -> str:
    """The methods of all routes with this path: Starlette names those of the first alone."""
    routes = request.app.routes
    found = {
        method
        for method in ("GET", "POST", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


def problem(status: int, code: str, title: str, detail: str, headers: dict[str, str], **extensions: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail, **extensions}
    return Response(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status, headers, MEDIA_TYPE)
