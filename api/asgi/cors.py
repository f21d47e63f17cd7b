"""Lets pages of other origins call the API, if `CORS_ORIGINS` names any.

What a response says about them is added below the application, in `api/asgi/uvicorn_protocol.py` and
`api/asgi/refusal.py`: some responses come from there, and a page that cannot read one does not learn that the server is
full.
"""

from collections.abc import Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi.problems import RawHeaders, problem_response
from api.errors import PreflightRefused

_METHODS = ("DELETE", "GET", "HEAD", "POST")
_PREFLIGHT_SECONDS = 600  # for which a browser need not ask again
REQUEST_HEADERS = (b"origin", b"access-control-request-method", b"access-control-request-headers")
_ORIGIN, _METHOD, _HEADERS = REQUEST_HEADERS
_VARY = (b"vary", b"Origin")
_READABLE = (
    b"Content-Disposition",
    b"Idempotency-Replayed",
    b"Location",
    b"Preference-Applied",
    b"RateLimit",
    b"RateLimit-Policy",
    b"Retry-After",
    b"X-Request-Id",
)
_EXPOSED = (b"access-control-expose-headers", b", ".join(_READABLE))


class CrossOrigin:
    """What browsers are told. Cookies play no part."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._all = b"*" in self._origins
        self.is_set = bool(origins)
        self.needs_origin = self.is_set and not self._all
        """Whether responses differ by the request's `Origin`."""

    def response_headers(self, request_headers: RawHeaders) -> RawHeaders:
        """What the response to a request with these headers says, whoever makes it."""
        if self._all:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        origin = _value(request_headers, _ORIGIN)
        if origin in self._origins:
            return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]
        return [_VARY] if self._origins else []

    def preflight_response(self, request_headers: RawHeaders) -> Response | None:
        """The answer to a browser that asks whether a page may send a request, but for `response_headers`.

        None if these are not the headers of such a question.
        """
        origin, method = (_value(request_headers, name).decode("latin-1") for name in (_ORIGIN, _METHOD))
        if not (self.is_set and origin and method):
            return None
        vary = {"Vary": "Access-Control-Request-Method, Access-Control-Request-Headers"}
        if not (self._all or origin.encode("latin-1") in self._origins):
            return problem_response(PreflightRefused(f"CORS_ORIGINS has no {origin[:100]!r}: the operator lists them."))
        if method not in _METHODS:
            return problem_response(PreflightRefused(f"No call has the method {method[:100]!r}."), vary)
        return Response(
            headers=vary
            | {
                "Access-Control-Allow-Methods": ", ".join(_METHODS),
                "Access-Control-Allow-Headers": _value(request_headers, _HEADERS).decode("latin-1"),
                "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
            }
        )


class Preflights:
    """Middleware that answers browsers which ask whether a page may send a request."""

    def __init__(self, app: ASGIApp, cross_origin: CrossOrigin) -> None:
        self._app = app
        self._cross_origin = cross_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            answer = self._cross_origin.preflight_response(scope["headers"])
        await (answer or self._app)(scope, receive, send)


def _value(headers: RawHeaders, wanted: bytes) -> bytes:
    return next((value.strip() for name, value in headers if name == wanted), b"")
