"""Around the application: every answer carries a request id, and HEAD works wherever GET does."""

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = "darkroom.head"  # in the scope of a request whose answer nobody reads
_HEADER = b"x-request-id"
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Envelope:
    """Outside of all else, so that the answer to an unforeseen error has an id, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn sends no body, for it goes by the method that it saw
            scope = {**scope, "method": "GET", HEAD: True}
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request_id = given if _ACCEPTED.fullmatch(given) else os.urandom(16).hex().encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_HEADER, request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
