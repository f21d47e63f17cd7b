"""The parameters that routes share. `api/asgi/endpoint.py` reads them, and FastAPI describes them."""

from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from pydantic import Field, PlainValidator, WithJsonSchema

from api.asgi.access_log import OWNER
from api.asgi.request_id import LIMITED_KEY
from api.auth.keys import ApiKey
from api.services import Services
from jobs.errors import JobNotFound
from jobs.ids import from_text


class _BearerKey(SecurityBase):
    """The request's API key, which counts the request.

    Raises Unauthorized, RateLimited or ReadOnlyKey; on a server without keys, WrongHost or CrossSiteRequest.
    """

    model = HTTPBearerModel(description="An API key, if the server has keys.")
    scheme_name = "HTTPBearer"

    def __call__(self, request: Request) -> ApiKey:
        scope = request.scope
        services: Services = scope["state"]["services"]
        authorization = ""
        for name, value in scope["headers"]:  # without the table of all headers, which few routes need
            if name == b"authorization":
                authorization = value.decode("latin-1")
                break
        key = services.api_keys.find(authorization)
        scope[OWNER] = key.owner
        if services.local_requests is not None and services.api_keys.is_open:
            services.local_requests.check(scope["method"], scope["headers"])
        if key.shows_limits:
            scope[LIMITED_KEY] = key
        key.check(scope["method"])
        return key


class _KeyOwner(_BearerKey):
    """Its owner, for routes that need no more."""

    def __call__(self, request: Request) -> str:  # type: ignore[override]  # in place of the key
        return super().__call__(request).owner


def services_of(request: Request) -> Services:
    services: Services = request.scope["state"]["services"]
    return services


def _job_id(text: str) -> bytes:
    job_id = from_text(text)
    if job_id is None:
        raise JobNotFound("Malformed job id.")
    return job_id


AppServices = Annotated[Services, Depends(services_of)]
Caller = Annotated[ApiKey, Depends(_BearerKey())]
Owner = Annotated[str, Depends(_KeyOwner())]
JobId = Annotated[
    bytes,
    Path(description="The job's id, from the response to the submit."),
    PlainValidator(_job_id),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="The most that a page may have.")]
