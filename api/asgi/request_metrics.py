"""Counts requests and measures how long they take, by route and status."""

from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi.endpoint import ROUTE, EndpointRoute
from api.asgi.request_id import RESPONSE
from jobs.metrics.process_metrics import OTHER, REQUEST_SECONDS

STATIC = "static"  # of files: the page, and those behind /docs
_STATUSES = {status: str(status) for status in (0, *range(100, 600))}


class RequestMetrics:
    """Stands around the problems, so that it sees the status of an error, and inside of what changes the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = monotonic()
        try:
            await self._app(scope, receive, send)
        finally:
            status = _STATUSES.get(scope[RESPONSE].status, OTHER)
            REQUEST_SECONDS.measured(monotonic() - began, *method_and_route(scope), status)


def method_and_route(scope: Scope) -> tuple[str, str]:
    """Of the routing table, never the client's own words."""
    route: EndpointRoute | None = scope.get(ROUTE)
    if route is None:
        return OTHER, STATIC if "endpoint" in scope else OTHER
    method = scope["method"]
    return method if method in (route.methods or ()) else OTHER, route.path
