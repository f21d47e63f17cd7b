"""A fault of the whole host."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack

from chaos.faults.context import STOP_SECONDS_MAX, FaultContext
from chaos.fleet import signal_tree
from tests.support.processes import Process

START_SECONDS_APART = 0.5


async def kill_host(context: FaultContext) -> float:
    """All processes die at once, and are started again in any order. What was acknowledged is on each server's disk."""
    fleet = context.fleet
    processes = [fleet.valkey, *fleet.apis, *fleet.workers, fleet.outbound]
    async with AsyncExitStack() as stack:
        for process in processes:
            await stack.enter_async_context(fleet.down(process))
        async with fleet.refusing_writes():
            for process in processes:
                signal_tree(process, signal.SIGKILL)
            for process in processes:
                await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
            context.random.shuffle(processes)
            starts = [
                asyncio.create_task(_start(context, process, number * START_SECONDS_APART))
                for number, process in enumerate(processes)
            ]
            await starts[processes.index(fleet.valkey)]
        await asyncio.gather(*starts)
    return await context.seconds_until_all_work(time.monotonic())


async def _start(context: FaultContext, process: Process, wait_seconds: float) -> None:
    await asyncio.sleep(wait_seconds)
    await context.fleet.start(process)
