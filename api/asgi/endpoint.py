"""How every route takes its parameters and answers. FastAPI describes the routes and does not solve their dependencies.

FastAPI's dependency solver costs more CPU than all else that a submit does in this process
(docs/decisions/0035-one-request-path.md).
"""

from collections.abc import Callable
from functools import cached_property
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any

from fastapi import FastAPI, Request, params
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from jobs.errors import InvalidRequest

Reader = Callable[[Request], Any]
ROUTE = "darkroom.route"  # scope key of the `EndpointRoute` of a request


class EndpointRoute(APIRoute):
    """A FastAPI route that fills in the parameters of its endpoint from the request.

    A parameter is the `Request`, or `Annotated` with one of FastAPI's markers:

    - `Depends(read)`: a plain function of the request, called as it is; it must not await.
    - `Path()`: a path parameter, validated by pydantic.
    - `Query()`: a `StrictQuery` with all parameters of the query.

    Dependencies are read first and the query last: a request without a valid API key learns nothing else.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["operation_id"] = options.get("operation_id") or endpoint.__name__  # FastAPI's has the path in it, too
        super().__init__(path, endpoint, **options)
        if self.dependencies:
            raise TypeError(f"{path}: dependencies of a route or router are not called; take them as parameters")
        self._methods = frozenset(self.methods or ())
        self._readers = _readers(endpoint)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = self.path_regex.match(scope["path"])
        if found is None:
            return Match.NONE, {}
        child_scope = {"endpoint": self.endpoint, "path_params": found.groupdict(), ROUTE: self}
        return Match.FULL if scope["method"] in self._methods else Match.PARTIAL, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            raise HTTPException(405)
        request = EndpointRequest(scope, receive)
        response: Response = await self.endpoint(**{name: read(request) for name, read in self._readers})
        await response(scope, receive, send)


def add_page(app: FastAPI, path: str, page: Response) -> None:
    """Answer a path with always the same, and leave it out of the OpenAPI document."""

    async def endpoint() -> Response:
        return page

    app.router.add_api_route(
        path, endpoint, include_in_schema=False, route_class_override=EndpointRoute, methods=["GET"]
    )


class StrictQuery(BaseModel):
    """The query's parameters. An unknown parameter is an error: ignored, it would seem to work."""

    model_config = ConfigDict(extra="forbid")


class EndpointRequest(Request):
    """A request that looks headers up in a table; Starlette's scans all of them at each lookup."""

    @cached_property
    def headers(self) -> Headers:
        return _Headers(self.scope["headers"])


class _Headers(Headers):
    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        self._table = dict(reversed(raw))  # the first of several with one name wins

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower().encode("latin-1") in self._table

    def get(self, key: str, default: Any = None) -> Any:
        value = self._table.get(key.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")


def _readers(endpoint: Callable[..., Any]) -> list[tuple[str, Reader]]:
    """The name of each parameter of an endpoint and what reads it, in the order in which they are read."""
    found = [(parameter.name, *_reader(parameter)) for parameter in signature(endpoint).parameters.values()]
    return [(name, read) for name, _, read in sorted(found, key=lambda it: it[1])]


def _reader(parameter: Parameter) -> tuple[int, Reader]:
    """What reads a parameter, and its place in the order."""
    if parameter.annotation is Request:
        return 0, lambda request: request
    for marker in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(marker, params.Depends) and marker.dependency is not None:
            if iscoroutinefunction(marker.dependency):
                raise TypeError(f"parameter {parameter.name}: a dependency that must be awaited is not supported")
            return 0, marker.dependency
        if isinstance(marker, params.Path):
            return 1, _path_reader(parameter.name, TypeAdapter(parameter.annotation))
        if isinstance(marker, params.Query):
            return 2, _query_reader(parameter.annotation.__origin__)
    raise TypeError(f"parameter {parameter.name}: {parameter.annotation} is not one that a route can take")


def _path_reader(name: str, adapter: TypeAdapter[Any]) -> Reader:
    validate = adapter.validator.validate_python

    def read(request: Request) -> Any:
        try:
            return validate(request.scope["path_params"][name])
        except ValidationError as error:
            raise _invalid_request(error, name) from None

    return read


def _query_reader(model: type[StrictQuery]) -> Reader:
    defaults = model()

    def read(request: Request) -> StrictQuery:
        if not request.scope["query_string"]:
            return defaults
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise _invalid_request(error) from None

    return read


def _invalid_request(error: ValidationError, *where: str) -> InvalidRequest:
    details = (f"{'.'.join(str(part) for part in (*where, *e['loc']))}: {e['msg']}" for e in error.errors())
    return InvalidRequest("; ".join(details))
