from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request

from api.errors import UploadTimeout
from api.settings import ApiSettings
from api.uploads.body import Body
from jobs.owner_shares import OWNER_OF_ALL
from jobs.store.for_api.upload_budget import UploadBudget


class Clock:
    """The body's event loop: its time passes while the body waits for its client."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self) -> float:
        return self.seconds


async def read(pieces: Iterable[tuple[float, int]], *, busy_seconds: float = 0, **limits: Any) -> int:
    """Read a body whose pieces, of so many bytes, each arrive after so many seconds. Returns the number of bytes."""
    settings = ApiSettings(redis_url="unix:///nowhere", **limits)
    clock, arriving = Clock(), iter(pieces)

    async def receive() -> dict[str, Any]:
        seconds, size = next(arriving, (0, 0))
        clock.seconds += seconds
        return {"type": "http.request", "body": bytes(size), "more_body": size > 0}

    budget = UploadBudget(1 << 20, 1, bulk_fraction=0.5)
    body = Body(Request({"type": "http", "headers": []}, receive), budget, settings, OWNER_OF_ALL)
    body._loop = clock  # type: ignore[assignment]
    count = 0
    async for piece in body.pieces(1 << 20):
        count += len(piece)
        clock.seconds += busy_seconds
    return count


async def test_an_upload_that_dribbles_is_refused() -> None:
    with pytest.raises(UploadTimeout, match="at least 100 bytes a second"):
        await read([(1, 99)] * 100)
    assert await read([(1, 100)] * 100) == 10_000


async def test_a_pause_is_made_up_for_by_what_comes_before_or_behind_it() -> None:
    assert await read([(50, 1), (1, 20_000)] * 10) == 200_010


async def test_the_time_in_which_the_api_does_not_read_does_not_count() -> None:
    assert await read([(0.1, 20)] * 1000, busy_seconds=10) == 20_000


async def test_a_short_upload_may_be_slow() -> None:
    assert await read([(30, 1)]) == 1
