"""The outermost middleware: every response has a request id and the limits of the request's API key, if it has any,
and the access log has a line for it.

HEAD works wherever GET does.
"""

import random
import re
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.asgi.access_log import AccessLog

IS_HEAD = "darkroom.head"  # scope key of a HEAD request, whose response body the client does not get
REQUEST_ID = "darkroom.request"  # scope key of the request's id, as bytes
RESPONSE = "darkroom.response"  # scope key of the `Sent` of the request
LIMITED_KEY = "darkroom.key"  # scope key of the `ApiKey` of a request, if it has limits
_HEADER = b"x-request-id"
_REFUSED = 400  # from this status on a request was not done
_READ_METHODS = frozenset({"GET", "OPTIONS"})
_VALID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Sent:
    """What was sent of the response so far, for the middlewares inside."""

    __slots__ = ("location", "status")

    def __init__(self) -> None:
        self.status = 0
        """0 until the response has begun."""
        self.location = b""
        """Its `Location`, if the request was a POST."""


class RequestIdMiddleware:
    """Stands outside of the problems, so that the response to an unexpected error has an id, too."""

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn sends no body: it has read the method before
            scope = {**scope, "method": "GET", IS_HEAD: True}
        header, began, sent = _request_id(scope), monotonic(), Sent()
        scope[REQUEST_ID], scope[RESPONSE] = header[1], sent

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.status = message["status"]
                if scope["method"] == "POST":
                    sent.location = next((value for name, value in message["headers"] if name == b"location"), b"")
                message["headers"] = [*message["headers"], header]
                if LIMITED_KEY in scope:
                    message["headers"] += scope[LIMITED_KEY].limit_headers()
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if sent.status >= _REFUSED or scope["method"] not in _READ_METHODS:
                self._access_log.write(scope, header[1], sent.status, monotonic() - began, sent.location)


def _request_id(scope: Scope) -> tuple[bytes, bytes]:
    """The response's header: the client's own id if it is valid, or a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER and _VALID.fullmatch(value):
            return name, value
    return new_request_id()


def new_request_id() -> tuple[bytes, bytes]:
    """The header with a random id."""
    return _HEADER, b"%032x" % random.getrandbits(128)


def log_fields(scope: Scope) -> dict[str, str]:
    """For `extra` of a log call."""
    return {"request_id": scope.get(REQUEST_ID, b"-").decode("ascii")}
