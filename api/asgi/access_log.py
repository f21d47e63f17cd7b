"""One line for each request that changes something, and for each response from 400 on: who did what.

    request_id=… owner=alice method=POST path=/v1/jobs status=202 code=- bytes=784 ms=3.1

`bytes` is the request's `Content-Length`. No line has a key, a query, or a header. What a client chooses freely is
percent-encoded, so that a line is a line.
"""

import logging
import re
from urllib.parse import quote

from starlette.types import Scope

from api.auth.rate_limit import TokenBucket

ACCESS_LOG = "access_log"  # in the lifespan's state: one for all responses of the process
OWNER, CODE = "darkroom.owner", "darkroom.code"  # scope keys: whose request it is, and the code of its problem
PATH_CHARACTERS_MAX = 200
_LINE = (
    "request_id=%(request_id)s owner=%(owner)s method=%(method)s path=%(path)s status=%(status)s code=%(code)s "
    "bytes=%(bytes)s ms=%(ms).1f"
)
_JOB_PATH = re.compile(r"/v1/jobs/([0-9A-Fa-f-]{36})(?:/|$)")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

log = logging.getLogger("darkroom.access")


class AccessLog:
    """Writes a bounded number of lines a second; a line says how many were left out before it."""

    def __init__(self, lines_per_second_max: int) -> None:
        self._bucket = TokenBucket(lines_per_second_max) if lines_per_second_max else None
        self._left_out = 0

    def write(self, scope: Scope, request_id: bytes, status: int, seconds: float, location: bytes = b"") -> None:
        """`status`: 0 if the client was gone before the response began. `seconds`: until the response was sent.
        `location`: that of the response.
        """
        if self._bucket is None:
            return
        if not self._bucket.take():
            self._left_out += 1
            return
        length, trace = b"-", None
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"traceparent":
                trace = _TRACEPARENT.fullmatch(value)
        path = scope["path"][:PATH_CHARACTERS_MAX]
        fields = {
            "request_id": request_id.decode("ascii"),
            "owner": scope.get(OWNER, "-"),
            "method": quote(scope["method"]),
            "path": quote(path) or "-",
            "status": status or "-",
            "code": scope.get(CODE, "-"),
            "bytes": quote(length[:20]),
            "ms": round(1e3 * seconds, 1),
        }
        text = _LINE
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
            text += " left_out=%(left_out)s"
        if trace is not None:
            fields["trace_id"] = trace[1].decode("ascii")
            text += " trace_id=%(trace_id)s"
        if job := job_of(path, location):
            fields["job_id"] = job  # of a submit that was accepted; in text, other lines have it in their path
        log.info(text, fields)


def job_of(path: str, location: bytes) -> str | None:
    """The job's id in the response's `Location`, else in the request's path."""
    found = _JOB_PATH.search(location.decode("latin-1") or path)
    return None if found is None else found[1]
