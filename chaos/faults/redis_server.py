"""Faults of the Redis server: its process, its connections, its memory, its disk, its clock."""

import asyncio
import os
import signal
import time

from redis.exceptions import RedisError

from chaos.faults.context import MOMENT_SECONDS_MAX, FaultContext, NotInjected
from chaos.faults.workers import kill_stopped_worker, stop_worker_in_lease

CLOCK_STEP_SECONDS = 20
TAIL_SECONDS, SLOW_SECONDS = 1.0, 5.0
RESPONSE_SECONDS = 3.0  # until the clients have read the responses to what was accepted before
CLOCK_READ_SECONDS_MAX, CLOCK_SLACK_SECONDS = 15.0, 1.0


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
    await context.cut_connections()
    return await context.seconds_until_work(since)


async def fill_memory(context: FaultContext) -> float:
    """At the memory limit, claims and finishes go on until no upload waits. What is to be fetched waits for room."""

    def limit(factor: float) -> int:
        used, before = redis.info("memory")["used_memory"], int(redis.config_get("maxmemory")["maxmemory"])
        redis.config_set("maxmemory", int(used * factor))
        return before

    redis = context.fleet.redis
    async with context.fleet.refusing_writes():
        before = await asyncio.to_thread(limit, 0.5)
        try:
            since = time.monotonic()
            while await asyncio.to_thread(context.fleet.has_ready_uploads):
                if time.monotonic() > since + context.recovery_seconds_max:
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
    async with context.fleet.refusing_writes(), context.fleet.may_exit_in_block(valkey):
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
    with context.ledger.clock_moves():
        try:
            await _set_clock(context, CLOCK_STEP_SECONDS)
            await context.seconds_until_work(time.monotonic())
            worker = context.worker()
            lease = await stop_worker_in_lease(context, worker)
        finally:
            await _set_clock(context, 0)
    return await kill_stopped_worker(context, worker, lease)


async def step_clock_past_deadlines(context: FaultContext) -> float:
    """The clock of Redis steps over the time to live of all results, and back: what has ended expires, nothing else."""
    fleet = context.fleet
    if not fleet.steppable:
        raise NotInjected("libfaketime is not installed")
    with context.ledger.store_loses(all_before=True), context.ledger.clock_moves():
        try:
            await _set_clock(context, context.result_ttl_seconds + 1)
            seconds = await context.seconds_until_work(time.monotonic())
        finally:
            await _set_clock(context, 0)
        await asyncio.sleep(RESPONSE_SECONDS)
        await context.audit.count_expired(context.ledger)
    return max(seconds, await context.seconds_until_work(time.monotonic()))


async def _set_clock(context: FaultContext, offset_seconds: float) -> None:
    """Set the clock of Redis, and wait until it has read it: libfaketime reads its file once a second, or later."""
    context.fleet.set_clock(offset_seconds)
    until = time.monotonic() + CLOCK_READ_SECONDS_MAX
    while time.monotonic() < until:
        try:
            seconds, microseconds = await asyncio.to_thread(context.fleet.redis.time)
            if abs(seconds + microseconds / 1e6 - time.time() - offset_seconds) < CLOCK_SLACK_SECONDS:
                return
        except RedisError:
            pass
        await asyncio.sleep(0.02)
    raise NotInjected("Redis did not take the time")


async def empty_redis(context: FaultContext) -> float:
    """Redis comes back without anything, under running processes: what is accepted from then on is done."""
    async with context.fleet.refusing_writes():
        with context.ledger.store_loses(all_before=True):
            await asyncio.to_thread(context.fleet.redis.flushall)
            await context.audit.forget_all()
        return await context.seconds_until_all_work(time.monotonic())


async def cut_tail(context: FaultContext) -> float:
    """Redis comes back without the end of its file, as after a power cut without fsync.

    Under an upload, whose first chunk is lost: its second one must not be taken for the first.
    """
    submitter = context.random.choice(context.load.submitters)
    opened, go_on = asyncio.Event(), asyncio.Event()
    upload = asyncio.create_task(submitter.part_over_a_fault(opened, go_on))
    await opened.wait()
    try:
        seconds = await _cut_tail(context, go_on)
    finally:
        go_on.set()
        if (job := await upload) is not None:
            context.load.verify(job, submitter)
    return seconds


async def _cut_tail(context: FaultContext, go_on: asyncio.Event) -> float:
    """`go_on` is set as soon as Redis is back."""
    fleet = context.fleet
    file = fleet.append_only_file()
    async with fleet.refusing_writes(), fleet.down(fleet.valkey):
        with context.ledger.store_loses(all_before=False):
            async with context.audit.paused():
                since, size = time.monotonic(), file.stat().st_size
                await asyncio.sleep(TAIL_SECONDS)
                fleet.valkey.signal(signal.SIGKILL)
                await asyncio.to_thread(fleet.valkey.wait)
                if fleet.append_only_file() != file:
                    raise NotInjected("the file was rewritten meanwhile")
                os.truncate(file, size)
                began = time.monotonic()
                await asyncio.to_thread(fleet.valkey.start)
                await context.audit.forget_since(since)
        go_on.set()
    return await context.seconds_until_work(began)


async def slow_redis(context: FaultContext) -> float:
    """Redis runs a tenth of the time, in place of a disk whose every fsync is slow: its replies wait for that, too."""
    valkey = context.fleet.valkey
    async with context.fleet.refusing_writes(), context.fleet.down(valkey):
        since = time.monotonic()
        try:
            while time.monotonic() < since + SLOW_SECONDS:
                valkey.signal(signal.SIGSTOP)
                await asyncio.sleep(0.45)
                valkey.signal(signal.SIGCONT)
                await asyncio.sleep(0.05)
        finally:
            valkey.signal(signal.SIGCONT)
        return await context.seconds_until_work(time.monotonic())
