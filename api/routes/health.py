"""`/livez` and `/readyz`."""

from fastapi import APIRouter
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.routes.parameters import AppServices

router = APIRouter(tags=["health"], route_class=EndpointRoute)


@router.get("/livez", summary="The process is alive", response_model=schemas.Health)
async def get_liveness() -> Response:
    return json_response({"status": "ok"})


@router.get(
    "/readyz", summary="The service accepts jobs", response_model=schemas.Health, responses=schemas.responses(503)
)
async def get_readiness(services: AppServices) -> Response:
    """Redis accepts writes. Jobs can be queued without a worker; `/v1/models` shows which workers serve a model."""
    await services.check_writes()
    return json_response({"status": "ok"})
