"""Faults of the Redis server: its process, its connections, its memory, its disk, its clock."""

import asyncio
import signal
import time

from redis.exceptions import RedisError

from chaos.faults.context import MOMENT_SECONDS_MAX, RECOVERY_SECONDS_MAX, FaultContext, NotInjected
from chaos.faults.workers import kill_stopped_worker, stop_worker_in_lease

CLOCK_STEP_SECONDS = 20
CLOCK_READ_SECONDS = 1.5  # libfaketime reads its file once a second


async def kill_redis(context: FaultContext) -> float:
    async with context.fleet.refusing_writes():
        return await context.restart(context.fleet.valkey, signal.SIGKILL)


async def terminate_redis(context: FaultContext) -> float:
    async with context.fleet.refusing_writes():
        return await context.restart(context.fleet.valkey, signal.SIGTERM)


async def freeze_redis(context: FaultContext) -> float:
    async with context.fleet.refusing_writes(), context.fleet.down(context.fleet.valkey):
        context.fleet.valkey.signal(signal.SIGSTOP)
        await asyncio.sleep(context.freeze_seconds)
        context.fleet.valkey.signal(signal.SIGCONT)
        since = time.monotonic()
    return await context.seconds_until_work(since)


async def cut_connections(context: FaultContext) -> float:
    since = time.monotonic()
    for kind in ("normal", "pubsub"):
        await asyncio.to_thread(context.fleet.redis.execute_command, "CLIENT", "KILL", "TYPE", kind)
    return await context.seconds_until_work(since)


async def fill_memory(context: FaultContext) -> float:
    """At the memory limit, claims and finishes go on until no item waits."""

    def limit(factor: float) -> int:
        used, before = redis.info("memory")["used_memory"], int(redis.config_get("maxmemory")["maxmemory"])
        redis.config_set("maxmemory", int(used * factor))
        return before

    redis = context.fleet.redis
    async with context.fleet.refusing_writes():
        before = await asyncio.to_thread(limit, 0.5)
        try:
            since = time.monotonic()
            while await asyncio.to_thread(context.fleet.stat, "pending:public") > 0:
                if time.monotonic() > since + RECOVERY_SECONDS_MAX:
                    return float("inf")
                await asyncio.sleep(0.01)
            drained = time.monotonic() - since
            await asyncio.sleep(max(0.0, since + 3 - time.monotonic()))
        finally:
            await asyncio.to_thread(redis.config_set, "maxmemory", before)
    await context.seconds_until_work(time.monotonic())
    return drained


async def fill_disk(context: FaultContext) -> float:
    """Valkey must not acknowledge what it cannot write: it exits at once, and at each start until there is space."""
    if not context.fleet.mounted:
        raise NotInjected("only root can mount a small disk")
    valkey = context.fleet.valkey
    async with context.fleet.refusing_writes():
        async with context.fleet.full_disk():
            until = time.monotonic() + MOMENT_SECONDS_MAX
            while valkey.running():
                if time.monotonic() > until:
                    raise NotInjected("Redis did not write to the full disk")
                await asyncio.sleep(0.02)
            await asyncio.sleep(2)  # restarted on the full disk, as a supervisor would
        since = time.monotonic()
        while not await _answers(context):
            await asyncio.sleep(0.05)
    return await context.seconds_until_work(since)


async def _answers(context: FaultContext) -> bool:
    try:
        return bool(await asyncio.to_thread(context.fleet.redis.ping))
    except RedisError:
        return False


async def step_clock(context: FaultContext) -> float:
    """The clock of Redis, which gives all times, steps forwards, and back while a worker that owns a lease dies."""
    fleet = context.fleet
    if not fleet.steppable:
        raise NotInjected("libfaketime is not installed")
    fleet.set_clock(CLOCK_STEP_SECONDS)
    try:
        await asyncio.sleep(CLOCK_READ_SECONDS)
        await context.seconds_until_work(time.monotonic())
        worker = context.worker()
        lease = await stop_worker_in_lease(context, worker)
    finally:
        fleet.set_clock(0)
    await asyncio.sleep(CLOCK_READ_SECONDS)
    return await kill_stopped_worker(context, worker, lease)
