"""Images that end or hang the process that decodes them, in one form with innocent ones."""

import asyncio
import time

from chaos.faults.context import FaultContext
from chaos.ledger import Accepted
from tests.support.poison_worker import marked

POISONED_SECONDS_MAX = 180  # three hangs until the time limit, or five starts of a worker
CODES = {"segfault": "worker_crashed", "fleet": "worker_lost", "gil": "timeout"}


async def crash_child(context: FaultContext) -> float:
    """Native code ends the child. The failed image is tried again as a job of its own, and fails again."""
    job = await _submit(context, "segfault")
    seconds = await _until_ended(context, job)
    if seconds < float("inf"):
        submitter = next(it for it in context.load.submitters if it.caller.owner == job.owner)
        if (retried := await submitter.retry(job, CODES["segfault"])) is not None:
            context.load.verify(retried, submitter)
            seconds = max(seconds, await _until_ended(context, retried))
    return seconds


async def take_worker_along(context: FaultContext) -> float:
    """As when the kernel ends a container that is out of memory: child and parent are gone."""
    async with context.fleet.may_exit_in_block(*context.fleet.workers):
        return await _until_ended(context, await _submit(context, "fleet"))


async def hang_with_gil(context: FaultContext) -> float:
    """Native code hangs and keeps the GIL, so that no thread of the child can renew its lease."""
    return await _until_ended(context, await _submit(context, "gil"))


async def _submit(context: FaultContext, kind: str) -> Accepted:
    submitter = context.random.choice(context.load.submitters)
    while (job := await submitter.form(marked(context.probe_image, kind), CODES[kind])) is None:
        await asyncio.sleep(0.1)
    context.load.verify(job, submitter)
    return job


async def _until_ended(context: FaultContext, job: Accepted) -> float:
    """Wait until the job has ended, by its caps. The seconds from then on until each worker works."""
    until = time.monotonic() + POISONED_SECONDS_MAX
    while job.job_id in context.ledger.open:
        if time.monotonic() > until:
            return float("inf")
        await asyncio.sleep(0.05)
    return await context.seconds_until_all_work(time.monotonic())
