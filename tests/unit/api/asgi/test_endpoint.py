"""How a route takes its parameters and in which order it refuses them, without a server."""

from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message

from api.asgi.endpoint import EndpointRoute, StrictQuery
from api.asgi.responses import json_response
from api.auth.keys import ApiKeys
from api.routes.parameters import AppServices, JobId, Owner
from jobs.errors import InvalidRequest, JobNotFound, Unauthorized

JOB_ID = "019254a0-7b11-7cc0-8000-3f1d5a2b9c4e"
KEY = "alice-key-0123456789"
BEARER = (b"authorization", f"Bearer {KEY}".encode())


class PageQuery(StrictQuery):
    limit: int = Field(100, ge=1)


async def endpoint(
    query: Annotated[PageQuery, Query()], request: Request, job_id: JobId, services: AppServices, owner: Owner
) -> Response:
    """Its parameters stand in an order other than that in which they are read."""
    return json_response([owner, job_id.hex(), query.limit, services.settings, request.headers.get("Accept")])


ROUTE = EndpointRoute("/things/{job_id}", endpoint, methods=["GET"])


async def call(route: EndpointRoute = ROUTE, path: str = f"/things/{JOB_ID}", **scope: Any) -> bytes:
    api_keys = ApiKeys({"alice": KEY}, processes=1, now_ms=lambda: 0)
    api_keys.replace_managed([], ever_made=False)
    services = SimpleNamespace(settings="settings", api_keys=api_keys, local_requests=None)
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [BEARER, (b"accept", b"first"), (b"accept", b"second")],
        "state": {"services": services},
    } | scope
    match, child_scope = route.matches(scope)
    assert match is Match.FULL
    sent = list[Message]()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await route.handle(scope | dict(child_scope), receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    body: bytes = sent[1]["body"]
    return body


async def test_an_endpoint_gets_its_parameters_by_their_types() -> None:
    job_id = JOB_ID.replace("-", "")
    assert await call() == f'["alice","{job_id}",100,"settings","first"]\n'.encode()
    assert b",7," in await call(query_string=b"limit=7")


@pytest.mark.parametrize(
    ("scope", "error"),
    [
        ({"path": "/things/x", "query_string": b"limit=0", "headers": []}, Unauthorized),
        ({"path": "/things/x", "query_string": b"limit=0"}, JobNotFound),
        ({"query_string": b"limit=0"}, InvalidRequest),
    ],
)
async def test_the_key_is_checked_before_the_id_and_the_id_before_the_query(
    scope: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await call(**scope)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (b"limit=0", "limit: Input should be greater than or equal to 1"),
        (b"other=1", "other: Extra inputs are not permitted"),
    ],
)
async def test_a_wrong_query_is_refused_by_the_name_of_the_parameter(query: bytes, detail: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await call(query_string=query)
    assert refused.value.detail == detail


async def test_a_wrong_path_parameter_is_refused_by_its_name() -> None:
    async def numbered(number: Annotated[int, Path()]) -> Response:
        return json_response(number)

    route = EndpointRoute("/numbered/{number}", numbered, methods=["GET"])
    assert await call(route, "/numbered/3") == b"3\n"
    with pytest.raises(InvalidRequest, match=r"^number: Input should be a valid integer"):
        await call(route, "/numbered/three")


@pytest.mark.parametrize("annotation", [str, Annotated[str, "no marker"]])
def test_a_parameter_that_no_reader_knows_is_refused_when_the_route_is_made(annotation: Any) -> None:
    async def unknown(thing: annotation) -> Response:
        return json_response(thing)

    with pytest.raises(TypeError, match="parameter thing"):
        EndpointRoute("/unknown", unknown, methods=["GET"])


@pytest.mark.parametrize(
    ("method", "path", "match"),
    [
        ("GET", "/things/a", Match.FULL),
        ("POST", "/things/a", Match.PARTIAL),
        ("GET", "/things/a/b", Match.NONE),
        ("GET", "/things/", Match.NONE),
        ("GET", "/things", Match.NONE),
    ],
)
def test_a_route_matches_its_own_path(method: str, path: str, match: Match) -> None:
    assert ROUTE.matches({"type": "http", "method": method, "path": path})[0] is match


async def awaited(_: Request) -> str:
    return "alice"


async def test_what_the_adapter_does_not_call_is_refused_when_the_route_is_made() -> None:
    """Passed over, a check of a key would let every request in."""

    async def awaits(owner: Annotated[str, Depends(awaited)]) -> Response:
        return json_response(owner)

    with pytest.raises(TypeError, match="must be awaited"):
        EndpointRoute("/things", awaits, methods=["GET"])
    with pytest.raises(TypeError, match="are not called"):
        EndpointRoute("/things/{job_id}", endpoint, methods=["GET"], dependencies=[Depends(awaited)])
