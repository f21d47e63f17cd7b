"""Around the application: every answer carries a request id, and HEAD works wherever GET does."""

import random
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = "darkroom.head"  # in the scope of a request whose answer nobody reads
_HEADER = b"x-request-id"
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id(scope: Scope) -> tuple[bytes, bytes]:
    """The header that every answer carries: the request's own id, if it has a sound one, or a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER and _ACCEPTED.fullmatch(value):
            return name, value
    return _HEADER, b"%032x" % random.getrandbits(128)


class RequestIdMiddleware:
    """Outside of all else, so that the answer to an unforeseen error has an id, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn sends no body, for it goes by the method that it saw
            scope = {**scope, "method": "GET", HEAD: True}
        header = request_id(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_id)
