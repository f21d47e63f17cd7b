"""One line for each request that changes something, and for each response from 400 on: who did what.

    request_id=… owner=alice method=POST path=/v1/jobs status=202 code=- bytes=784 ms=3.1

`bytes` is the request's `Content-Length`. No line has a key, a query, or a header. What a client chooses freely is
percent-encoded, so that a line is a line.
"""

import logging
from urllib.parse import quote

from starlette.types import Scope

from api.auth.rate_limit import TokenBucket

OWNER, CODE = "darkroom.owner", "darkroom.code"  # scope keys: whose request it is, and the code of its problem
PATH_CHARACTERS_MAX = 200

log = logging.getLogger("darkroom.access")


class AccessLog:
    """Writes a bounded number of lines a second; a line says how many were left out before it."""

    def __init__(self, lines_per_second_max: int) -> None:
        self._bucket = TokenBucket(lines_per_second_max) if lines_per_second_max else None
        self._left_out = 0

    def write(self, scope: Scope, request_id: bytes, status: int, seconds: float) -> None:
        """`status`: 0 if the client was gone before the response began. `seconds`: until the response was sent."""
        if self._bucket is None:
            return
        if not self._bucket.take():
            self._left_out += 1
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"-")
        left_out, self._left_out = self._left_out, 0
        log.info(
            "request_id=%s owner=%s method=%s path=%s status=%s code=%s bytes=%s ms=%.1f%s",
            request_id.decode("ascii"),
            scope.get(OWNER, "-"),
            quote(scope["method"]),
            quote(scope["path"][:PATH_CHARACTERS_MAX]),
            status or "-",
            scope.get(CODE, "-"),
            quote(length[:20]),
            1e3 * seconds,
            f" left_out={left_out}" if left_out else "",
        )
