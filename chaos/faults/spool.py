"""Faults of the place in which large uploads wait."""

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack

from redis.exceptions import RedisError

from chaos.clients.bodies import large
from chaos.faults.context import MOMENT_SECONDS_MAX, FaultContext, NotInjected, StoppedLease
from chaos.fleet import MODELS, signal_tree
from jobs.ids import to_text
from jobs.records import ChunkRef
from jobs.spool.names import Pointer
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key, upload_key

AWAY_SECONDS = 3
STOP_SECONDS = 1.5  # less than a lease: large uploads gather meanwhile, and no lease lapses
DELETED_SHARE = 0.5
_POLL_SECONDS = 0.05


async def fill_spool(context: FaultContext) -> float:
    """The disk of the uploads is full: large ones are refused until there is space, small ones go on."""
    if not context.fleet.uploads.mounted:
        raise NotInjected("only root can mount a small disk, and S3 has none")
    async with context.fleet.refusing_writes():
        with context.fleet.uploads.full():
            await _until(context, {503}, MOMENT_SECONDS_MAX)
            if await context.seconds_until_work(time.monotonic()) == float("inf"):
                return float("inf")
        return await _until(context, {200, 202}, context.recovery_seconds_max)


async def take_uploads_away(context: FaultContext) -> float:
    """The uploads cannot be reached, by the API and the workers: nothing that waits there is lost."""
    async with context.fleet.refusing_writes():
        with context.fleet.uploads.away():
            await _until(context, {503}, MOMENT_SECONDS_MAX)
            await asyncio.sleep(AWAY_SECONDS)
        return await _until(context, {200, 202}, context.recovery_seconds_max)


async def delete_uploads(context: FaultContext) -> float:
    """Files or objects of uploads that wait are gone: their images end as `upload_lost`, and no others.

    The workers are stopped meanwhile: else nobody could tell which were read before they were deleted.
    """
    async with AsyncExitStack() as stack:
        for worker in context.fleet.workers:
            await stack.enter_async_context(context.fleet.down(worker))  # no other worker starts meanwhile
        workers = [worker for worker in context.fleet.workers if worker.running()]
        for worker in workers:
            signal_tree(worker, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOP_SECONDS)
            deleted = await asyncio.to_thread(_delete_uploads, context)
        except RedisError:
            raise NotInjected("Redis was away") from None
        finally:
            for worker in workers:
                signal_tree(worker, signal.SIGCONT)
    if not deleted:
        raise NotInjected("no large upload was waiting")
    return await context.seconds_until_redone(StoppedLease(b"", deleted), time.monotonic())


def _delete_uploads(context: FaultContext) -> list[ChunkRef]:
    """Delete the uploads of some ready chunks, and tell the ledger which images they had."""
    redis = context.fleet.redis
    lists = [name for model in MODELS for name in redis.keys(f"{keys.READY}{model}*")]
    ready = [ChunkRef.unpack(packed) for name in lists for packed in redis.lrange(name, 0, -1)]
    deleted = list[ChunkRef]()
    for ref in ready:
        stored = redis.get(upload_key(ref.job_id, ref.chunk)) if ref.spooled else None
        if stored is None or context.random.random() > DELETED_SHARE:  # None: its job was canceled
            continue
        pointer = Pointer.unpack(stored)
        assert pointer is not None
        names = redis.hmget(job_key(ref.job_id), [chunk_field("names", chunk) for chunk in range(ref.chunk + 1)])
        first = sum(len(json.loads(packed)) for packed in names[:-1])
        context.fleet.uploads.delete(pointer.name)
        context.ledger.uploads_deleted(to_text(ref.job_id), range(first, first + ref.items))
        deleted.append(ref)
    return deleted


async def _until(context: FaultContext, wanted: set[int], seconds_max: float) -> float:
    """Submit large images to each API in turn until an answer has one of these statuses; the seconds until then."""
    since = time.monotonic()
    while time.monotonic() < since + seconds_max:
        for url in context.fleet.urls:
            if await context.probe(url, large(context.probe_image), wait_seconds=0) in wanted:
                return time.monotonic() - since
        await asyncio.sleep(_POLL_SECONDS)
    if 503 in wanted:
        raise NotInjected("no API refused a large upload")
    return float("inf")
