"""How long code keeps the event loop to itself: what it spends between two turns of the loop."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType

CALLS_MAX = 40_000  # of Python and C functions in one stretch: 5 ms
CPU_SECONDS_MAX = 0.05  # of the thread: five times what a stretch may take, for slow machines
_TRIES = 3  # the least counts: one may have a garbage collection in it, of all that other tests have left

Reading = Callable[[], Coroutine[object, object, None]]


async def check_stretches(read: Reading) -> None:
    """A parser that reads all of its input, without a wait for anybody, leaves the loop in time.

    Calls of functions are counted, which no busy machine changes; they do not tell what one call costs. The CPU time of
    the thread does, and does not count what else the machine is busy with.
    """
    assert await _longest_in_calls(read) < CALLS_MAX
    seconds = list[float]()
    for _ in range(_TRIES):
        seconds.append(await _longest(read(), time.thread_time))
        if seconds[-1] < CPU_SECONDS_MAX:
            return
    raise AssertionError(f"{1000 * min(seconds):.0f} ms of CPU between two turns of the event loop")


async def _longest_in_calls(read: Reading) -> float:
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    reading = read()
    sys.setprofile(count)
    try:
        return await _longest(reading, lambda: calls)
    finally:
        sys.setprofile(None)


async def _longest(reading: Awaitable[None], spent: Callable[[], float]) -> float:
    """The most by which `spent` grows between two turns of the event loop."""
    before, longest = spent(), 0.0

    def look() -> None:
        nonlocal before, longest
        now = spent()
        before, longest = now, max(longest, now - before)

    async def look_at_each_turn() -> None:
        while True:
            look()
            await asyncio.sleep(0)

    looking = asyncio.create_task(look_at_each_turn())
    try:
        await reading
        look()
    finally:
        looking.cancel()
    return longest
