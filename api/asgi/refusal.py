"""The response to what no route sees: bytes that are no request, or a head or a connection over a limit."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.asgi.access_log import CODE, AccessLog
from api.asgi.cors import REQUEST_HEADERS, CrossOrigin
from api.asgi.problems import RawHeaders, problem_response
from api.asgi.request_id import new_request_id
from jobs.errors import DarkroomError

_LINE = re.compile(b"\n(%b):([\t -~]{0,1000})(?=\r?\n)" % b"|".join(REQUEST_HEADERS), re.IGNORECASE)
_LINE_BYTES_MAX = 1100
_HEAD_END = re.compile(b"\n\r?\n")


class RefusedHead(NamedTuple):
    """What has come of a request."""

    method: bytes
    url: bytes
    headers: RawHeaders
    began: float
    """In the event loop's time."""

    @property
    def path(self) -> str:
        """Without a query, which may have secrets. Empty if the URL is no path: it may have a password."""
        return unquote(self.url.partition(b"?")[0].decode("latin-1")) if self.url.startswith(b"/") else ""


class Refusal:
    """Of one connection, which it ends.

    Of a head that is refused before its end, and not kept, it finds what a page of another origin needs to read why.
    """

    def __init__(self, error: DarkroomError, head: RefusedHead, cross_origin: CrossOrigin) -> None:
        self._error = error
        self._head = head
        self._headers = dict(reversed(head.headers))
        self._cross_origin = cross_origin
        self._rest = b""
        self._request_id = new_request_id()
        self._status = 0

    def head_ends_in(self, data: bytes | memoryview) -> bool:
        """Read on. Returns whether the head ends in the data, or need not be read."""
        if not self._cross_origin.needs_origin:
            return True
        text = self._rest + data
        for name, value in _LINE.findall(text):
            self._headers.setdefault(name.lower(), value)
        self._rest = text[-_LINE_BYTES_MAX:]
        return _HEAD_END.search(text) is not None

    def response(self, default_headers: RawHeaders, retry_after_seconds: int) -> bytes:
        """All of it. A browser that asks first is answered, or it would not send the request which is to be refused."""
        own = list(self._headers.items())
        answer = self._cross_origin.preflight_response(own) or _problem(self._error, retry_after_seconds)
        self._status = answer.status_code
        headers = [*default_headers, *self._cross_origin.response_headers(own), *answer.raw_headers, self._request_id]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[answer.status_code], *lines, b"connection: close\r\n\r\n", bytes(answer.body)])

    def write_line(self, access_log: AccessLog, now: float) -> None:
        """Log the response: no middleware has seen it."""
        if self._status >= 400:
            method, headers = self._head.method.decode("latin-1"), self._head.headers
            scope = {"method": method, "path": self._head.path, "headers": headers, CODE: self._error.code}
            access_log.write(scope, self._request_id[1], self._status, now - self._head.began)


def _problem(error: DarkroomError, retry_after_seconds: int) -> Response:
    return problem_response(error, {"Retry-After": str(retry_after_seconds)} if error.status == 503 else None)
