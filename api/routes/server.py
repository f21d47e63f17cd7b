"""`/v1/server`: what this server is, what it takes, and how busy it is."""

from fastapi import APIRouter
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.routes.parameters import AppServices, Owner
from api.server_schema import ServerResource

router = APIRouter(prefix="/v1/server", tags=["server"], route_class=EndpointRoute)


@router.get(
    "",
    summary="Version, limits, queue and budgets",
    response_model=ServerResource,
    responses=schemas.responses(401, 503),
)
async def get_server(_: Owner, services: AppServices) -> Response:
    """At most a second old. All numbers are those of the whole server, not of one owner."""
    return json_response(await services.server_status.view())
