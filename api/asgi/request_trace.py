"""The span of a request, below that of the client's `traceparent`: its route, its status, its job."""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi.access_log import job_of
from api.asgi.request_id import REQUEST_ID, RESPONSE
from api.asgi.request_metrics import method_and_route
from jobs.tracing import TRACEPARENT, request_span


class RequestTrace:
    """Stands where `RequestMetrics` does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_span(_traceparent(scope)) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                method, route = method_and_route(scope)
                sent = scope[RESPONSE]
                attributes: dict[str, str | int] = {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": sent.status,
                    "darkroom.request_id": scope[REQUEST_ID].decode("ascii"),
                }
                if job := job_of(scope["path"], sent.location):
                    attributes["darkroom.job_id"] = job
                span.describe(f"{method} {route}", attributes, failed=sent.status >= 500)


def _traceparent(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == TRACEPARENT.encode()), "")
