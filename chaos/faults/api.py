"""Faults of the API."""

import asyncio
import signal
import time

from chaos.faults.context import MOMENT_SECONDS_MAX, FaultContext, NotInjected


async def kill_api_in_upload(context: FaultContext) -> float:
    until = time.monotonic() + MOMENT_SECONDS_MAX
    while not (busy := [api for api in context.fleet.apis if context.load.uploads[api.url] > 0 and api.running()]):
        if time.monotonic() > until:
            raise NotInjected("no archive was being uploaded")
        await asyncio.sleep(0.005)
    return await context.restart(context.random.choice(busy), signal.SIGKILL)


async def kill_api_before_response(context: FaultContext) -> float:
    """Redis has received submits, and the API dies before it can respond."""
    api = context.random.choice(context.fleet.apis)
    valkey = context.fleet.valkey
    async with context.fleet.refusing_writes(), context.fleet.down(valkey):
        valkey.signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        recovery = asyncio.create_task(context.restart(api, signal.SIGKILL))
        await asyncio.sleep(0.05)
        valkey.signal(signal.SIGCONT)
    return await recovery


async def terminate_api(context: FaultContext) -> float:
    return await context.restart(context.random.choice(context.fleet.apis), signal.SIGTERM)
