"""JSON responses that end in a newline, so that a terminal shows them on lines of their own."""

from typing import Any

import orjson
from starlette.responses import Response


class _JsonResponse(Response):
    """Sets its headers without Starlette's `init_headers`, which costs more than the rest of a response."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        for name, value in headers.items():
            self.raw_headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return _JsonResponse(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), status, headers or {})
