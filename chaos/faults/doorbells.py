"""Faults of the Celery queue, in which workers find their doorbells."""

import asyncio
import json
import time

from chaos.faults.context import MODEL, FaultContext, NotInjected
from jobs.store import keys

QUEUE = f"{keys.QUEUE}{MODEL}"
QUIET_SECONDS = 1.0  # until no child lingers any more


async def empty_queue(context: FaultContext) -> float:
    since = time.monotonic()
    while time.monotonic() < since + 1:
        await asyncio.to_thread(context.fleet.redis.delete, QUEUE)
        await asyncio.sleep(0.01)
    return await context.seconds_until_work(time.monotonic())


async def duplicate_doorbells(context: FaultContext) -> float:
    bell = _doorbell(context, b"the-same-id")
    since = time.monotonic()
    for _ in range(20):
        await asyncio.to_thread(context.fleet.redis.lpush, QUEUE, *[bell] * 20)
        await asyncio.sleep(0.05)
    return await context.seconds_until_work(since)


async def send_old_doorbells(context: FaultContext) -> float:
    """Doorbells of a version whose task had another name or other arguments."""
    message = json.loads(_doorbell(context, b"an-old-id"))
    renamed = message | {"headers": message["headers"] | {"task": "classify_batch"}}
    emptied = message | {"body": "W1tdLCB7fSwge31d"}  # [[], {}, {}]
    since = time.monotonic()
    bells = [json.dumps(each).encode() for each in (renamed, emptied)]
    await asyncio.to_thread(context.fleet.redis.lpush, QUEUE, *bells)
    return await context.seconds_until_work(since)


async def lose_last_doorbell(context: FaultContext) -> float:
    """The doorbell of an image is lost, and no other work comes: the sweep must ring for it."""
    fleet, template = context.fleet, f"{keys.DOORBELL_TEMPLATE}{MODEL}"
    with context.load.quiet():
        until = time.monotonic() + context.recovery_seconds_max
        while context.load.submitting or await asyncio.to_thread(fleet.pending):
            if time.monotonic() > until:
                raise NotInjected("other work did not end")
            await asyncio.sleep(0.02)
        await asyncio.sleep(QUIET_SECONDS)
        submit = asyncio.create_task(context.probe(fleet.urls[0], context.probe_image, wait_seconds=0))
        while not submit.done():  # without a template, nobody rings; the workers write it again within a second
            await asyncio.to_thread(fleet.redis.delete, template)
        since = time.monotonic()
        while await asyncio.to_thread(fleet.pending):
            if time.monotonic() > since + context.recovery_seconds_max:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.monotonic() - since


def _doorbell(context: FaultContext, task_id: bytes) -> bytes:
    template = context.fleet.redis.get(keys.DOORBELL_TEMPLATE + MODEL)
    if template is None:
        raise NotInjected("no worker has registered its doorbell")
    return bytes(template.replace(keys.DOORBELL_PLACEHOLDER.encode(), task_id))
