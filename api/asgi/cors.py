"""Lets pages of other origins call the API, if `CORS_ORIGINS` names any."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from api.asgi.problems import problem_response
from api.errors import PreflightRefused

_METHODS = ("DELETE", "GET", "HEAD", "POST")
_EXPOSED = (
    "Content-Disposition",
    "Idempotency-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
)


class CrossOrigin(CORSMiddleware):
    """Answers preflights, and says on each response which origin may read it. Cookies play no part."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=("*",), expose_headers=_EXPOSED
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refused = problem_response(
            PreflightRefused(f"{bytes(response.body).decode()}: the operator lists origins in CORS_ORIGINS.")
        )
        refused.headers["Vary"] = response.headers["Vary"]
        return refused
