"""JSON answers, each a line, so that a terminal shows them as such."""

from typing import Any

import orjson
from starlette.responses import Response


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), status, headers, "application/json")
