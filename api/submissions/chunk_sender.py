"""Sends the chunks of one upload into an open job."""

import asyncio
from contextlib import suppress
from hashlib import blake2b

from api.submissions.digests import update_digest
from jobs.errors import IdempotencyKeyReused
from jobs.store.for_api.open_job_parts import OpenJobParts, Part, Progress
from jobs.store.for_api.submission import Chunk
from jobs.store.for_api.upload_budget import UploadBudget

NOTHING_SENT = Progress(0, b"", done=False)


class ChunkSender:
    """Sends chunk after chunk: one is in flight while the next is read.

    `previous` is how far an earlier upload of the same part got. Its chunks are compared, not sent again.
    """

    def __init__(
        self,
        open_jobs: OpenJobParts,
        upload_budget: UploadBudget,
        room_wait_seconds: float,
        part: Part,
        digest: blake2b,
        previous: Progress,
    ) -> None:
        self._open_jobs = open_jobs
        self._upload_budget = upload_budget
        self._room_wait_seconds = room_wait_seconds
        self._part = part
        self._digest = digest
        self._previous = previous
        self._count = 0  # of chunks read, sent or not
        self.items_added = 0
        """How many images this sender has added to the job."""
        self._in_flight: asyncio.Task[None] | None = None
        part.chunks = previous.chunks

    @property
    def added(self) -> int:
        """How many chunks of this part the job has."""
        return self._part.chunks

    async def send(self, chunk: Chunk) -> None:
        """Send a chunk once the one before it was added.

        Raises:
            IdempotencyKeyReused: the earlier upload of the part had other content.
            QueueFull: the upload budget had no space for too long.
            And as `OpenJobParts.add` does, at the latest with the next chunk.
        """
        update_digest(self._digest, chunk)
        self._count += 1
        if self._count <= self._previous.chunks:
            if self._count == self._previous.chunks:
                self._compare()
            return
        if self._previous.done:
            raise IdempotencyKeyReused
        await self.flush()
        await self._upload_budget.reserve_when_free(chunk.upload_bytes, self._part.owner, self._room_wait_seconds)
        self._in_flight = asyncio.create_task(self._add(chunk, self._digest.digest()))

    async def flush(self) -> bytes:
        """Wait for the chunk in flight. Returns the digest of the request so far. Raises as `OpenJobParts.add` does."""
        task, self._in_flight = self._in_flight, None
        if task is not None:
            await task
        return self._digest.digest()

    async def finish(self, *, skipped: int) -> None:
        """Mark the part as done, so that a repeat of it is replayed. Raises as `send` does."""
        await self.flush()
        if self._count < self._previous.chunks:
            raise IdempotencyKeyReused
        if not self._previous.done:
            await self._open_jobs.add(self._part, None, self._digest.digest(), done=True, skipped=skipped)

    async def stop(self) -> None:
        """Wait for the chunk in flight, whether it succeeds or not."""
        with suppress(Exception):
            await self.flush()

    def _compare(self) -> None:
        if self._digest.digest() != self._previous.digest:
            raise IdempotencyKeyReused

    async def _add(self, chunk: Chunk, digest: bytes) -> None:
        try:
            await self._open_jobs.add(self._part, chunk, digest)
            self.items_added += len(chunk.names)
        finally:
            self._upload_budget.release(chunk.upload_bytes, self._part.owner)
