"""Writes docs/reference/errors.md from the errors in the code: `python -m docs.errors_page`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from darkroom.errors import ApiError

import api.errors  # noqa: F401 - so that its errors exist
from api.asgi.problems import HTTP_ADVICE, HTTP_CODES
from jobs.errors import DarkroomError
from jobs.item_codes import ITEM_ADVICE, ITEM_DETAIL, RETRYABLE, ItemCode

PAGE = Path(__file__).parent / "reference/errors.md"
HEAD = """# Errors

Every refusal is `application/problem+json` with a stable `code`, to be compared, and a `detail` for a person that says
what to do. This page is written from the code (`python -m docs.errors_page`).

## Refused requests

"Again" tells whether the same request may succeed a little later: after the seconds of `Retry-After`, with the same
`Idempotency-Key`. The clients do that by themselves.
"""
BETWEEN = """
`api_unreachable` (502, again: yes) comes from the edge while the API is away. In the Python client each code has a
class in `darkroom.errors`, and both clients have `unreachable` if no answer came at all.

## Images of a job

An image that fails does so alone: its result has `error` with a `code` and a `detail`. "Again" tells whether
`POST /v1/jobs/{id}/retry` takes it into a new job.
"""
_FROM_DETAIL = "As the detail says."
_INTERNAL = (500, "internal_error", "Internal server error", "Tell the operator the number in the detail.")


def page() -> str:
    requests = [
        (f"`{code}`", str(status), cause, what, _again(status, code)) for status, code, cause, what in _refusals()
    ]
    items = [
        (f"`{code}`", ITEM_DETAIL[code], ITEM_ADVICE[code], "yes" if code in RETRYABLE else "no") for code in ItemCode
    ]
    head = ("code", "status", "cause", "what to do", "again")
    return HEAD + _table(head, requests) + BETWEEN + _table((head[0], *head[2:]), items)


def _refusals() -> list[tuple[int, str, str, str]]:
    """Status, code, cause and advice, by status."""
    found = {
        error.code: (error.status, error.code, error.title, error.advice or _FROM_DETAIL)
        for error in _subclasses(DarkroomError)
        if hasattr(error, "code")
    }
    of_router = {(status, code, _cause(code), HTTP_ADVICE[status]) for status, code in HTTP_CODES.items()}
    return sorted([*found.values(), *of_router, _INTERNAL])


def _subclasses(kind: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    """A class before those below it, whose code it then keeps."""
    for found in reversed(kind.__subclasses__()):
        yield from _subclasses(found)
        yield found


def _cause(code: str) -> str:
    return code.replace("_", " ").capitalize()


def _again(status: int, code: str) -> str:
    """As the client decides."""
    return "yes" if ApiError(status, "", code=code).retryable else "no"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    return "\n" + "\n".join(lines).replace("<", "&lt;") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
