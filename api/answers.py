"""JSON answers."""

from typing import Any

import orjson
from starlette.responses import Response


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")
