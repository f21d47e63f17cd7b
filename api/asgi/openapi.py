"""The OpenAPI document, with errors as they are sent."""

from typing import Any

from fastapi import FastAPI

from api.asgi.problems import MEDIA_TYPE, Problem

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def install(app: FastAPI) -> None:
    """Have the app describe each error as a problem: FastAPI knows its own kind of 422 alone."""
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

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _describe_errors(responses: dict[str, Any]) -> None:
    for status in [status for status in responses if status >= "400"]:
        if responses[status]["description"] == "Validation Error":  # no route here answers so
            del responses[status]
        else:
            responses[status]["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}
