"""Errors as `application/problem+json` (RFC 9457), each with a stable `code`."""

import logging
import uuid

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi.access_log import CODE
from api.asgi.request_id import log_fields
from api.services import Services
from jobs.errors import DarkroomError, IdempotencyInProgress, KeyLimitReached, QueueFull

log = logging.getLogger(__name__)

RawHeaders = list[tuple[bytes, bytes]]

MEDIA_TYPE = "application/problem+json"
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
HTTP_ADVICE = {
    404: "No call has this path; the page at /docs lists all.",
    405: "This path does not take this method; the header Allow lists those that it takes.",
}
_METHODS = ("DELETE", "GET", "POST")


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


class ProblemMiddleware:
    """Answers an error of the application with a problem.

    If the response has started, the server refuses another start: it logs the error and closes the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            if isinstance(error, DarkroomError):
                scope[CODE] = error.code
            await _response(scope, error)(scope, receive, send)


def problem_response(error: DarkroomError, headers: dict[str, str] | None = None) -> Response:
    return _problem(error.status, error.code, error.title, error.detail, headers, error.extensions)


def _response(scope: Scope, error: Exception) -> Response:
    if isinstance(error, DarkroomError):
        return problem_response(error, _headers(scope, error))
    if isinstance(error, HTTPException):  # of the router, or of the files behind /docs
        if scope["method"] == "OPTIONS" and (error.status_code == 405 or scope["path"] == "*"):
            return Response(status_code=204, headers={"Allow": _allowed_methods(scope)})
        headers = {"Allow": _allowed_methods(scope)} if error.status_code == 405 else dict(error.headers or {})
        code = HTTP_CODES.get(error.status_code, "http_error")
        detail = HTTP_ADVICE.get(error.status_code, error.detail)
        return _problem(error.status_code, code, error.detail, detail, headers)
    error_id = uuid.uuid4().hex[:12]
    log.error("unexpected error %s", error_id, exc_info=error, extra=log_fields(scope))
    return _problem(500, "internal_error", "Internal server error", f"The server has logged it as {error_id}.")


def _headers(scope: Scope, error: DarkroomError) -> dict[str, str]:
    if error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, KeyLimitReached):
        return {"Retry-After": str(error.retry_after_seconds)}
    services: Services = scope["state"]["services"]
    if isinstance(error, QueueFull):
        return {"Retry-After": str(services.drain_rate.retry_after(error))}
    if error.status in (429, 503) or isinstance(error, IdempotencyInProgress):
        return {"Retry-After": str(services.settings.retry_after_seconds)}
    return {}


def _allowed_methods(scope: Scope) -> str:
    """The methods of all routes of this path: Starlette's `Allow` has those of the first route only."""
    scope, found = {**scope, "root_path": ""}, {"OPTIONS"}  # a mount has set its own
    for route in scope["app"].routes:
        methods = ("GET",) if isinstance(route, Mount) else _METHODS  # a mount, of files, matches any
        found |= {it for it in methods if route.matches({**scope, "method": it})[0] is Match.FULL}
    return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))


def _problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: dict[str, str] | None = None,
    extensions: dict[str, str] | None = None,
) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    content = orjson.dumps(body | (extensions or {}), option=orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, headers, MEDIA_TYPE)
