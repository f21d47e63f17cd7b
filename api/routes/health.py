"""`/livez` and `/readyz`."""

from fastapi import APIRouter
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.routes.parameters import AppServices

router = APIRouter(tags=["health"], route_class=EndpointRoute)


@router.get("/livez", summary="The process is alive", response_model=schemas.Health)
async def livez() -> Response:
    return json_response({"status": "ok"})


@router.get("/readyz", summary="Jobs can be taken", response_model=schemas.Health, responses=schemas.responses(503))
async def readyz(services: AppServices) -> Response:
    """Redis takes writes. Queueing works without a worker; `/v1/models` says who serves."""
    await services.check_writes()
    return json_response({"status": "ok"})
