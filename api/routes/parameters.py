"""The parameters that routes share. `api/asgi/endpoint.py` reads them, and FastAPI describes them."""

from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from pydantic import Field, PlainValidator, WithJsonSchema

from api.services import Services
from jobs.errors import JobNotFound
from jobs.ids import from_text


class _BearerKey(SecurityBase):
    """Reads the owner of the request's API key; raises Unauthorized."""

    model = HTTPBearerModel(description="An API key, if the server has keys.")
    scheme_name = "HTTPBearer"

    def __call__(self, request: Request) -> str:
        services: Services = request.scope["state"]["services"]
        for name, value in request.scope["headers"]:  # without the table of all headers, which few routes need
            if name == b"authorization":
                return services.api_keys.owner(value.decode("latin-1"))
        return services.api_keys.owner("")


def services_of(request: Request) -> Services:
    services: Services = request.scope["state"]["services"]
    return services


def _job_id(text: str) -> bytes:
    job_id = from_text(text)
    if job_id is None:
        raise JobNotFound("Malformed job id.")
    return job_id


AppServices = Annotated[Services, Depends(services_of)]
Owner = Annotated[str, Depends(_BearerKey())]
JobId = Annotated[
    bytes,
    Path(description="The job's id, from the response to the submit."),
    PlainValidator(_job_id),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="The most that a page may have.")]
