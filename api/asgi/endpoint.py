"""Routes that are called straight, while FastAPI still describes them.

FastAPI's dependency solver costs about 100 µs a request for the few parameters of these routes, more than all else
that a submit does in this process (docs/decisions/0006-direct-routes.md).
"""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Annotated, Any, cast, get_args, get_type_hints

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.asgi.request_id import RequestIdMiddleware, request_id
from jobs.errors import JobNotFound
from jobs.ids import from_text

JobId = Annotated[
    bytes,
    Path(description="The job's id, as the submit answered it."),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="How many a page.")]


class StrictQuery(BaseModel):
    """A parameter that is not known, or not yet, is refused: passed over, it would seem to work."""

    model_config = ConfigDict(extra="forbid")


_KNOWN = {"request", "owner", "calls", "job_id", "query"}


Handler = Callable[["DirectRequest"], Coroutine[Any, Any, Response]]
ErrorHandler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """A route whose endpoint takes no parameters but these, by name: `request`, `owner`, `calls`, `job_id`, `query`.

    They mean what `api/auth.py` and `JobId` say to FastAPI; `query` is a model of the query's parameters. A key
    that is missing or wrong is answered first, then a malformed id, then a wrong parameter.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = direct(self.endpoint)

        async def handle_any(request: Request) -> Response:
            return await handle(DirectRequest(request.scope, request.receive))

        return handle_any


def direct(endpoint: Callable[..., Any]) -> Handler:
    """What a `DirectRoute` with this endpoint does with a request."""
    names = signature(endpoint).parameters.keys()
    assert names <= _KNOWN, f"{endpoint.__name__} takes {names - _KNOWN}"
    takes_request, takes_owner, takes_calls, takes_job_id = (
        name in names for name in ("request", "owner", "calls", "job_id")
    )
    read_query: Callable[[Request], BaseModel] | None = None
    if "query" in names:
        read_query = _query_reader(get_args(get_type_hints(endpoint, include_extras=True)["query"])[0])

    async def handle(request: DirectRequest) -> Response:
        state = request.scope["state"]
        arguments = dict[str, Any]()
        owner = state["keys"].owner(_bearer(request))
        if takes_owner:
            arguments["owner"] = owner
        if takes_job_id:
            arguments["job_id"] = _job_id(request)
        if read_query is not None:
            arguments["query"] = read_query(request)
        if takes_request:
            arguments["request"] = request
        if takes_calls:
            arguments["calls"] = state["services"]
        response: Response = await endpoint(**arguments)
        return response

    return handle


class DirectRequest(Request):
    """A request whose headers stand in a table; Starlette's own reads through all of them at each look."""

    @property
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = _Headers(self.scope["headers"])
        return self._headers


class _Headers(Headers):
    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        self._table = dict(reversed(raw))  # of one that comes twice, the first

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower().encode("latin-1") in self._table

    def get(self, key: str, default: Any = None) -> Any:
        value = self._table.get(key.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")


class Express:
    """In front of `app` and its envelope: the two calls that a load is made of, past all middleware and the router.

    These take 60 to 100 µs a request, as much as all else that such a call does here. FastAPI describes the same two
    endpoints, and would answer the same; errors go through the handlers that it has.
    """

    def __init__(self, app: FastAPI, *, collection: str, submit: Callable[..., Any], get: Callable[..., Any]) -> None:
        self._app = app
        self._enveloped = RequestIdMiddleware(app)
        self._collection = collection
        self._submit = direct(submit)
        self._get = direct(get)
        self._prefix = f"{collection}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._handler(scope) if scope["type"] == "http" else None
        if handle is None:
            await self._enveloped(scope, receive, send)
            return
        scope["app"] = self._app
        request = DirectRequest(scope, receive)
        try:
            response = await handle(request)
        except Exception as error:
            response = await self._problem(request, error)
        headers = [*response.raw_headers, request_id(scope)]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _problem(self, request: Request, error: Exception) -> Response:
        handlers = cast("dict[Any, ErrorHandler]", self._app.exception_handlers)
        return await next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)(request, error)

    def _handler(self, scope: Scope) -> Handler | None:
        path = scope["path"]
        if path == self._collection:
            return self._submit if scope["method"] == "POST" else None
        if scope["method"] == "GET" and path.startswith(self._prefix):
            job_id = path[len(self._prefix) :]
            if job_id and "/" not in job_id:
                scope["path_params"] = {"job_id": job_id}
                return self._get
        return None


def _bearer(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def _job_id(request: Request) -> bytes:
    job_id = from_text(request.path_params["job_id"])
    if job_id is None:
        raise JobNotFound("This is no job's id.")
    return job_id


def _query_reader(model: type[BaseModel]) -> Callable[[Request], BaseModel]:
    nothing_asked = model()

    def read(request: Request) -> BaseModel:
        if not request.scope["query_string"]:
            return nothing_asked
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise RequestValidationError([{**e, "loc": ("query", *e["loc"])} for e in error.errors()]) from None

    return read
