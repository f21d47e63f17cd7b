"""The OpenAPI document, with errors described as problems, and the page at /docs that shows it."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api.asgi.endpoint import EndpointRoute
from api.asgi.problems import MEDIA_TYPE, Problem

_ASSETS = Path(fastapi_offline.__file__).with_name("static")
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
# Addresses are relative, so that the page works below any path.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Darkroom</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  showExtensions: true,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_pages(app: FastAPI) -> None:
    """Swagger UI at /docs. All of it comes from this server, and no script stands in the page."""
    pages = {
        "/docs": Response(_PAGE, media_type="text/html", headers=_POLICY),
        "/docs/start.js": Response(_START, media_type="text/javascript", headers=_POLICY),
    }
    for path, page in pages.items():
        app.router.add_api_route(
            path, _endpoint(page), include_in_schema=False, route_class_override=EndpointRoute, methods=["GET"]
        )
    app.mount("/docs/assets", StaticFiles(directory=_ASSETS))


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
