"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi import openapi
from api.asgi.access_log import AccessLog
from api.asgi.cors import CrossOrigin, Preflights
from api.asgi.problems import ProblemMiddleware
from api.asgi.request_id import RequestIdMiddleware
from api.asgi.request_metrics import RequestMetrics
from api.asgi.request_trace import RequestTrace
from api.asgi.root_path import WithoutRootPath
from api.asgi.web_page import add_web_page
from api.routes import health, jobs, models, predict, results, server, webhooks
from api.services import Services, open_services
from api.settings import ApiSettings
from jobs.model_packages import pinned_cards
from jobs.tracing import close_tracing

DESCRIPTION = """
Submit one image or many, get a job id at once, and fetch the classes later.

A job that was accepted with 202 always ends: every image is `succeeded`, `failed` with a reason, or `canceled`.
Errors are `application/problem+json` with a stable `code`. Every response has an `X-Request-Id`.

The `detail` of an error says what to do.

Any call may be answered with 400 `malformed_request`, 408 `request_timeout`, 414 `url_too_long`, 431
`headers_too_large` or 503 `too_many_connections`, and `Connection: close`, before it reaches a route; with 404
`not_found` or 405 `method_not_allowed` if there is no such route; with 500 `internal_error`; and a preflight of a page
that is not allowed with 400 `preflight_refused`.
"""


class State(TypedDict):
    """What the lifespan adds to the `state` of each request's scope."""

    services: Services
    access_log: AccessLog


class Application(FastAPI):
    """FastAPI with another middleware stack: request id; preflights, prefix, traces and metrics if they are set;
    problems, router.

    FastAPI's own seven middlewares serve its dependencies, forms and telemetry, which no route here uses
    (docs/decisions/0035-one-request-path.md).
    """

    def __init__(self, settings: ApiSettings, **options: Any) -> None:
        super().__init__(**options)
        route = partial(Router.app, self.router)  # Starlette's: FastAPI's also serves telemetry and included routers
        app: ASGIApp = ProblemMiddleware(route)
        if settings.metrics_port is not None:
            app = RequestMetrics(app)
        if settings.otel_exporter_otlp_endpoint is not None:
            app = RequestTrace(app)
        if settings.root_path:
            app = WithoutRootPath(app, settings.root_path)
        if settings.cors_origins:
            app = Preflights(app, CrossOrigin(settings.cors_origins))
        self.access_log = AccessLog(settings.access_log_lines_per_second_max)
        self._stack = self.middleware_stack = RequestIdMiddleware(app, self.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self._stack(scope, receive, send)


def create_app(settings: ApiSettings) -> FastAPI:
    """The application for these settings. Its connections open in its lifespan."""
    cards = list(pinned_cards(settings.models_dir))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_services(settings, cards) as services:
            yield {"services": services, "access_log": app.access_log}
        await asyncio.to_thread(close_tracing)

    app = Application(
        settings,
        title="Darkroom",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    # The router tries one route after the other: the two calls that make up a load come first. `include_router` would
    # put a router with a scan of its own in between.
    modules = (jobs, results, webhooks, models, server, predict, health)
    app.router.routes[:0] = [route for module in modules for route in module.router.routes]
    add_web_page(app)
    openapi.add_pages(app)
    openapi.describe_problems(app)
    return app
