"""`/livez` and `/readyz`."""

from fastapi import APIRouter
from starlette.responses import Response

from api import schemas
from api.asgi.responses import json_response
from api.auth import Calls

router = APIRouter(tags=["health"])


@router.get("/livez", summary="The process is alive", response_model=schemas.Health)
async def livez() -> Response:
    return json_response({"status": "ok"})


@router.get("/readyz", summary="Jobs can be taken", response_model=schemas.Health, responses=schemas.responses(503))
async def readyz(calls: Calls) -> Response:
    """Redis takes writes. Queueing works without a worker; `/v1/models` says who serves."""
    await calls.client.check_writes()
    return json_response({"status": "ok"})
