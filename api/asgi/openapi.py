"""The OpenAPI document, with errors described as problems, and the pages at /docs and /redoc that show it."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api.asgi.endpoint import EndpointRoute
from api.asgi.problems import MEDIA_TYPE, Problem

_ASSETS = "/static-offline-docs"
_ASSETS_FOLDER = Path(fastapi_offline.__file__).with_name("static")
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def add_pages(app: FastAPI) -> None:
    """Swagger UI and ReDoc. Their scripts come from this server; FastAPI's own pages load them from a CDN."""
    assert app.openapi_url is not None
    assert app.swagger_ui_oauth2_redirect_url is not None
    pages = {
        "/docs": get_swagger_ui_html(
            openapi_url=app.openapi_url,
            title=f"{app.title} - Swagger UI",
            oauth2_redirect_url=app.swagger_ui_oauth2_redirect_url,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
        ),
        app.swagger_ui_oauth2_redirect_url: get_swagger_ui_oauth2_redirect_html(),
        "/redoc": get_redoc_html(
            openapi_url=app.openapi_url,
            title=f"{app.title} - ReDoc",
            redoc_js_url=f"{_ASSETS}/redoc.standalone.js",
            with_google_fonts=False,
            redoc_favicon_url=f"{_ASSETS}/favicon.png",
        ),
    }
    for path, page in pages.items():
        app.router.add_api_route(
            path, _endpoint(page), include_in_schema=False, route_class_override=EndpointRoute, methods=["GET"]
        )
    app.mount(_ASSETS, StaticFiles(directory=_ASSETS_FOLDER))


def _endpoint(page: Response) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def endpoint() -> Response:
        return page

    return endpoint


def describe_problems(app: FastAPI) -> None:
    """Describe each error as a problem. FastAPI itself would describe its own kind of 422 only."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = generate()
            schemas = described["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            for path in described["paths"].values():
                for operation in path.values():
                    _describe_errors(operation["responses"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # how FastAPI documents it


def _describe_errors(responses: dict[str, Any]) -> None:
    for status in [status for status in responses if status >= "400"]:
        if responses[status]["description"] == "Validation Error":  # FastAPI's own 422, which no route sends
            del responses[status]
        else:
            responses[status]["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}
