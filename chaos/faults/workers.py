"""Faults of workers. Those that kill or freeze do so while the process owns a lease."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from redis.exceptions import RedisError

from chaos.faults.context import STOP_SECONDS_MAX, FaultContext, NotInjected, StoppedLease
from chaos.fleet import signal_tree
from chaos.ledger import Accepted
from jobs.ids import from_text
from jobs.records import ChunkRef
from jobs.store import keys
from tests.support.poison_worker import marked
from tests.support.processes import Worker

SIGNALS = 3  # as many crashes as fail an image


async def kill_child(context: FaultContext) -> float:
    lease, send = await _stop_child_in_lease(context)
    send(signal.SIGKILL)
    return await context.seconds_until_redone(lease, time.monotonic())


async def kill_worker(context: FaultContext) -> float:
    worker = context.worker()
    return await kill_stopped_worker(context, worker, await stop_worker_in_lease(context, worker))


async def freeze_worker(context: FaultContext) -> float:
    """Stop a worker (SIGSTOP) until its leases lapse and other workers finish its chunks, then continue it (SIGCONT).

    The store must refuse the late finishes.
    """
    worker = context.worker()
    lease = await stop_worker_in_lease(context, worker)
    since = time.monotonic()
    seconds = await context.seconds_until_redone(lease, since)
    await asyncio.sleep(max(0.0, since + context.freeze_seconds - time.monotonic()))
    signal_tree(worker, signal.SIGCONT)
    return seconds


async def terminate_worker(context: FaultContext) -> float:
    return await context.restart(context.worker(), signal.SIGTERM)


async def terminate_group(context: FaultContext) -> float:
    """SIGTERM to all processes of a worker at once, as systemd and a terminal send it. Nothing is charged for it.

    The worker is at work on a slow image, and so is the next one that gets it: three charges would fail it.
    """
    submitter = context.random.choice(context.load.submitters)
    job = await submitter.form(marked(context.probe_image, "slow"))
    if job is None:
        raise NotInjected("no slow image was accepted")
    context.load.verify(job, submitter)
    since = 0.0
    async with context.fleet.may_exit_in_block(*context.fleet.workers):
        for _ in range(SIGNALS):  # the supervisor starts the workers again meanwhile
            if (worker := await _worker_at(context, job)) is None:
                break
            since = time.monotonic()
            signal_tree(worker, signal.SIGTERM)
            await asyncio.to_thread(worker.wait, STOP_SECONDS_MAX)
        if not since:
            raise NotInjected("no worker was seen at the slow image")
        seconds = await context.seconds_until_work(since)
        return max(seconds, await context.seconds_until_all_work(time.monotonic()))


async def _worker_at(context: FaultContext, job: Accepted) -> Worker | None:
    """The worker that owns a lease of this job, as soon as there is one; None if the job has ended."""
    until = time.monotonic() + context.recovery_seconds_max
    while time.monotonic() < until and job.job_id in context.ledger.open:
        if (worker := await asyncio.to_thread(_worker_with, context, job)) is not None:
            return worker
        await asyncio.sleep(0.02)
    return None


def _worker_with(context: FaultContext, job: Accepted) -> Worker | None:
    """The worker that owns a lease of this job."""
    redis, job_id = context.fleet.redis, from_text(job.job_id)
    with suppress(RedisError):
        for token in redis.zrange(keys.LEASES, 0, -1):
            members = redis.smembers(keys.LEASED_CHUNKS.encode() + token)
            if any(ChunkRef.unpack(member).job_id == job_id for member in members):
                pid = int(token.split(b"|")[2])
                return next((it for it in context.fleet.workers if it.running() and pid in it.children()), None)
    return None


async def stop_child(context: FaultContext) -> float:
    """One child is stopped while it owns a lease, and goes on after others have finished its chunks."""
    lease, send = await _stop_child_in_lease(context)
    since = time.monotonic()
    seconds = await context.seconds_until_redone(lease, since)
    await asyncio.sleep(max(0.0, since + context.freeze_seconds - time.monotonic()))
    send(signal.SIGCONT)
    return seconds


async def change_settings(context: FaultContext) -> float:
    """A rolling change: for a while, workers with other leases and other batches run beside those as before."""
    changed, slowest = context.fleet.workers[: len(context.fleet.workers) // 2 + 1], 0.0
    before = [worker.environment for worker in changed]
    try:
        for worker in changed:
            worker.environment = worker.environment | {"LEASE_SECONDS": "12", "BATCH_ITEMS": "16"}
            slowest = max(slowest, await context.restart(worker, signal.SIGTERM))
        await asyncio.sleep(context.freeze_seconds)
        slowest = max(slowest, await context.seconds_until_work(time.monotonic()))
    finally:
        for worker, environment in zip(changed, before, strict=True):
            worker.environment = environment
            slowest = max(slowest, await context.restart(worker, signal.SIGTERM))
    return slowest


async def _stop_child_in_lease(context: FaultContext) -> tuple[StoppedLease, Callable[[signal.Signals], None]]:
    """Stop (SIGSTOP) a child while it owns a lease. Returns the lease, and what sends the child a signal."""
    pid = context.random.choice(context.worker().children())

    def send(number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    return await context.stop_in_lease([pid], send), send


async def stop_worker_in_lease(context: FaultContext, worker: Worker) -> StoppedLease:
    """Stop (SIGSTOP) all processes of a worker while one of them owns a lease."""
    return await context.stop_in_lease(worker.children(), lambda number: signal_tree(worker, number))


async def kill_stopped_worker(context: FaultContext, worker: Worker, lease: StoppedLease) -> float:
    """Kill all processes of a worker at once, as when a container dies. Seconds until its chunks have results."""
    async with context.fleet.down(worker):
        signal_tree(worker, signal.SIGKILL)
        recovery = asyncio.create_task(context.seconds_until_redone(lease, time.monotonic()))
        await asyncio.to_thread(worker.wait)
    return await recovery
