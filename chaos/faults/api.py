"""Faults of the API."""

import asyncio
import signal
import time

from chaos.faults.context import MOMENT_SECONDS_MAX, FaultContext, NotInjected
from tests.support.poison_worker import marked

FOLLOWED_SECONDS = 0.5
CANCELED_AT_ONCE = 5


async def kill_api_in_upload(context: FaultContext) -> float:
    until = time.monotonic() + MOMENT_SECONDS_MAX
    while not (busy := [api for api in context.fleet.apis if context.load.uploads(api.url) > 0 and api.running()]):
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
    """It tells a slow job's images to a client meanwhile: the client must see that they are not all."""
    api = context.random.choice(context.fleet.apis)
    submitter = context.random.choice(context.load.submitters)
    job = await submitter.form(marked(context.probe_image, "slow"))
    if job is None:
        return await context.restart(api, signal.SIGTERM)
    context.load.verify(job, submitter)
    following = asyncio.create_task(context.load.verifier.follow_once(job, submitter.caller, api.url, []))
    await asyncio.sleep(FOLLOWED_SECONDS)
    seconds = await context.restart(api, signal.SIGTERM)
    await following
    return seconds


async def cancel_open_jobs(context: FaultContext) -> float:
    """No fault of the stack: clients cancel open jobs of which a part has ended. Its results stay."""
    submitters = [context.random.choice(context.load.submitters) for _ in range(CANCELED_AT_ONCE)]
    jobs = await asyncio.gather(*(submitter.canceled_halfway() for submitter in submitters))
    for job, submitter in zip(jobs, submitters, strict=True):
        if job is not None:
            context.load.verify(job, submitter)
    return await context.seconds_until_work(time.monotonic())
