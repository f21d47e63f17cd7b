"""Waiting for a condition, always with a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.02

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, seconds: float = 60, what: str = "the condition", poll_seconds: float = POLL_SECONDS
) -> T:
    """Wait until the condition is true, and return its value. Fails the test after so many seconds."""
    ends = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < ends, f"timed out after {seconds} s while waiting for {what}"
        time.sleep(poll_seconds)


async def eventually(condition: Callable[[], T], *, seconds: float = 60, what: str = "the condition") -> T:
    """`wait_until` for coroutines: the event loop goes on meanwhile."""
    ends = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < ends, f"timed out after {seconds} s while waiting for {what}"
        await asyncio.sleep(POLL_SECONDS)
