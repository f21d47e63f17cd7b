"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from api.asgi import openapi
from api.asgi.problems import ProblemMiddleware
from api.asgi.request_id import RequestIdMiddleware
from api.routes import health, jobs, models, predict, results, webhooks
from api.services import Services, open_services
from api.settings import ApiSettings
from jobs.model_packages import pinned_cards

DESCRIPTION = """
Submit one image or many, get a job id at once, and come back for the classes.

Once a submit was answered with 202, the job ends: every image is `succeeded`, `failed` with a reason, or `canceled`.
Errors are `application/problem+json` with a stable `code`. Every answer has an `X-Request-Id`.
"""


class State(TypedDict):
    """What the lifespan adds to the `state` of each request's scope."""

    services: Services


def create_app(settings: ApiSettings) -> FastAPI:
    """The application for these settings. Its connections open in its lifespan."""
    cards = list(pinned_cards(settings.models_dir))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_services(settings, cards) as services:
            yield {"services": services}

    app: FastAPI = FastAPIOffline(  # serves the scripts of /docs itself instead of linking to a CDN
        title="Darkroom",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asks for providers at each request
    )
    for page in app.routes:
        if isinstance(page, APIRoute):  # /docs and /redoc are served by FastAPI's own handler, which needs this
            page.app = AsyncExitStackMiddleware(page.app)
    # The router tries one route after the other: the two calls that make up a load come first. `include_router` would
    # put a router with a scan of its own in between.
    routers = (jobs.router, results.router, webhooks.router, models.router, predict.router, health.router)
    app.router.routes[:0] = [route for router in routers for route in router.routes]
    openapi.install(app)
    # Instead of FastAPI's own seven middlewares. No route of ours needs any of them.
    app.middleware_stack = RequestIdMiddleware(ProblemMiddleware(app.router))
    return app
