"""Faults of the lines between services and Redis: nothing passes, little passes, or replies do not."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from chaos.faults.context import FaultContext
from chaos.lines import Proxy
from tests.support.processes import Process

SLOW_BYTES_PER_SECOND = 16 << 10  # a claim of 64 small images takes longer than a second, one of 256 than a lease
LOSING_SECONDS, LOST_SECONDS, WHOLE_SECONDS = 6.0, 0.2, 0.3
SENDERS_OF_PARTS = 6


async def black_hole(context: FaultContext) -> float:
    """No byte passes between a worker that owns a lease and Redis, and no connection closes. Then all arrive at once.

    Others do its work meanwhile; the store must refuse what it still finishes.
    """
    worker = context.worker()
    async with _through_proxies(context, [worker]) as (proxy,):
        loop = asyncio.get_running_loop()

        def send(number: signal.Signals) -> None:  # in a thread
            loop.call_soon_threadsafe(proxy.hold if number == signal.SIGSTOP else proxy.pass_on)

        lease = await context.stop_in_lease(worker.children(), send)
        since = time.monotonic()
        seconds = await context.seconds_until_redone(lease, since)
        await asyncio.sleep(max(0.0, since + context.freeze_seconds - time.monotonic()))
        proxy.pass_on()
        return max(seconds, await context.seconds_until_all_work(time.monotonic()))


async def slow_line(context: FaultContext) -> float:
    """Few bytes a second pass between the workers and Redis: work goes on slowly, and nothing is charged for it."""
    async with _through_proxies(context, context.fleet.workers) as proxies:
        for proxy in proxies:
            proxy.bytes_per_second = SLOW_BYTES_PER_SECOND
        await asyncio.sleep(context.freeze_seconds)
    return await context.seconds_until_all_work(time.monotonic())


async def lose_replies(context: FaultContext) -> float:
    """Time and again, Redis does what the APIs ask for, and its replies are lost: submits, parts, seals, all."""
    until = time.monotonic() + LOSING_SECONDS
    async with context.fleet.refusing_writes(), _through_proxies(context, context.fleet.apis) as proxies:
        parts = [asyncio.create_task(_send_parts(context, until)) for _ in range(SENDERS_OF_PARTS)]
        while time.monotonic() < until:
            for proxy in proxies:
                proxy.loses_replies = True
            await asyncio.sleep(LOST_SECONDS)
            for proxy in proxies:
                await proxy.cut()
                proxy.loses_replies = False
            await asyncio.sleep(WHOLE_SECONDS * context.random.uniform(0.5, 1.5))
    seconds = await context.seconds_until_work(time.monotonic())
    await asyncio.gather(*parts)
    return seconds


async def _send_parts(context: FaultContext, until: float) -> None:
    while time.monotonic() < until:
        submitter = context.random.choice(context.load.submitters)
        if (job := await submitter.parts()) is not None:
            context.load.verify(job, submitter)


@asynccontextmanager
async def _through_proxies(context: FaultContext, processes: Sequence[Process]) -> AsyncIterator[list[Proxy]]:
    """All connections between these processes and Redis go through proxies during the block."""
    async with AsyncExitStack() as stack:
        lines = [context.fleet.lines[process] for process in processes]
        proxies = [await stack.enter_async_context(line.through_proxy()) for line in lines]
        await context.cut_connections()
        await context.seconds_until_work(time.monotonic())
        yield proxies
