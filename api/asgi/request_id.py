"""The outermost middleware: every response has a request id, and HEAD works wherever GET does."""

import random
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "darkroom.head"  # scope key of a HEAD request, whose response body the client does not get
_HEADER = b"x-request-id"
_VALID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIdMiddleware:
    """Stands outside of the problems, so that the response to an unexpected error has an id, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn sends no body: it has read the method before
            scope = {**scope, "method": "GET", IS_HEAD: True}
        header = _request_id(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _request_id(scope: Scope) -> tuple[bytes, bytes]:
    """The response's header: the client's own id if it is valid, or a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER and _VALID.fullmatch(value):
            return name, value
    return _HEADER, b"%032x" % random.getrandbits(128)
