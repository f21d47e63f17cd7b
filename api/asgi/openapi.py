"""The OpenAPI document, with errors described as problems, and the page at /docs that shows it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api.asgi.endpoint import add_page
from api.asgi.problems import MEDIA_TYPE, Problem
from api.schemas import ACCEPTED
from jobs.errors import DarkroomError

_ASSETS = Path(fastapi_offline.__file__).with_name("static")
_CODE = re.compile(r"`([a-z_]+)`")
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
        add_page(app, path, page)
    app.mount("/docs/assets", StaticFiles(directory=_ASSETS))


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
            errors = {kind.code: kind for kind in _kinds(DarkroomError)}
            described["components"]["examples"] = {code: _example(kind) for code, kind in sorted(errors.items())}
            for route in app.routes:
                _restore_example(schemas, getattr(route, "response_model", None))
            for path in described["paths"].values():
                for operation in path.values():
                    _describe_errors(operation["responses"], errors)
                    if example := _json_content(operation["responses"].get("202", {})):
                        example["example"] = _json_content(ACCEPTED)["example"]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # how FastAPI documents it


def _describe_errors(responses: dict[str, Any], errors: dict[str, type[DarkroomError]]) -> None:
    for status in [status for status in responses if status >= "400"]:
        description = responses[status]["description"]
        if description == "Validation Error":  # FastAPI's own 422, which no route sends
            del responses[status]
        else:
            codes = [code for code in _CODE.findall(description) if code in errors]
            examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
            responses[status]["content"] = {MEDIA_TYPE: {"schema": _PROBLEM, "examples": examples}}


def _restore_example(schemas: dict[str, Any], model: type[BaseModel] | None) -> None:
    """FastAPI drops what is null in an example."""
    extra = {} if model is None else model.model_config.get("json_schema_extra")
    if model is not None and isinstance(extra, dict) and "example" in extra:
        schemas[model.__name__]["example"] = extra["example"]


def _json_content(response: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = response.get("content", {}).get("application/json", {})
    return content


def _kinds(kind: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    """All errors with a code."""
    if hasattr(kind, "code"):
        yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def _example(kind: type[DarkroomError]) -> dict[str, Any]:
    value = {"type": "about:blank", "title": kind.title, "status": kind.status, "code": kind.code}
    return {"summary": kind.title, "value": value | {"detail": kind.advice or kind.title}}
