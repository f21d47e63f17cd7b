"""Faults of workers. Those that kill or freeze do so while the process owns a lease."""

import asyncio
import os
import signal
import time
from contextlib import suppress

from chaos.faults.context import FaultContext, StoppedLease
from chaos.fleet import signal_tree
from tests.support.processes import Worker


async def kill_child(context: FaultContext) -> float:
    pid = context.random.choice(context.worker().children())

    def send(number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    lease = await context.stop_in_lease([pid], send)
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
