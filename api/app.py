"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from api.asgi import openapi, problems
from api.asgi.endpoint import Express
from api.auth import Keys
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
    services: Services
    keys: Keys


def create_app(settings: ApiSettings) -> ASGIApp:
    """The application for these settings; connections open when it starts."""
    cards = list(pinned_cards(settings.models_dir))
    keys = Keys(settings.api_keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_services(settings, cards) as services:
            yield {"services": services, "keys": keys}

    app: FastAPI = FastAPIOffline(  # its pages come from this process, not from a CDN
        title="Darkroom", version="1", description=DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    problems.install(app, settings.retry_after_seconds)
    for router in (jobs.router, results.router, webhooks.router, models.router, predict.router, health.router):
        app.include_router(router)
    openapi.install(app)
    return Express(app, collection=jobs.router.prefix, submit=jobs.submit, get=jobs.get_job)
