"""Large uploads, submitted to a store with a folder for them."""

import asyncio
from collections.abc import Callable

from jobs.codec import pack_upload
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submission import ExistingJob, Submission
from jobs.store.for_api.submit import Submitter
from tests.support.store import Store, chunk_of

LARGE = bytes(range(256)) * 1024  # 256 KiB
SIZE = len(pack_upload([LARGE]))
BUDGET = 4 * SIZE

Files = Callable[[], list[str]]


async def submit(store: Store, *images: bytes, submitter: Submitter | None = None) -> Submission:
    submission = await store.submission(*images)
    await accept(submitter or store.submitter, submission)
    return submission


async def accept(submitter: Submitter, submission: Submission) -> int | ExistingJob:
    chunk = chunk_of(submission)
    if submitter.writes_ahead(chunk):
        await submitter.write_upload(submission, chunk)
    return await submitter.enqueue(submission)


async def until(sweep: SpoolSweep, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await sweep.run_once()
