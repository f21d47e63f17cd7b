"""The chunks of one upload on their way into an open job."""

import asyncio
from contextlib import suppress
from hashlib import blake2b

from jobs.errors import IdempotencyKeyReused
from jobs.store.open_job_parts import OpenJobParts, Part, Progress
from jobs.store.submit import Chunk
from jobs.store.upload_budget import UploadBudget

DIGEST_BYTES = 16


def new_digest(*terms: object) -> blake2b:
    """Of what was asked; the content is fed to it chunk by chunk, and chunks end at the same images each time."""
    return blake2b(repr(terms).encode(), digest_size=DIGEST_BYTES)


def update_digest(digest: blake2b, chunk: Chunk) -> None:
    digest.update(chunk.packed_names)
    digest.update(chunk.data or b"")


class ChunkStream:
    """Adds chunk after chunk, one in flight while the next is read.

    What the store has of this part from an upload that broke off, `before`, is compared and not added again.
    """

    def __init__(
        self,
        open_jobs: OpenJobParts,
        upload_budget: UploadBudget,
        room_wait_seconds: float,
        part: Part,
        digest: blake2b,
        before: Progress,
    ) -> None:
        self._open_jobs = open_jobs
        self._upload_budget = upload_budget
        self._room_wait_seconds = room_wait_seconds
        self._part = part
        self._digest = digest
        self._before = before
        self._number = 0
        self._in_flight: asyncio.Task[None] | None = None
        part.chunks = before.chunks

    @property
    def added(self) -> int:
        """How many chunks of this part the job has."""
        return self._part.chunks

    async def add(self, chunk: Chunk) -> None:
        """
        Raises:
            IdempotencyKeyReused: the part has brought something else before.
            QueueFull: there was no room for too long.
            And as `OpenJobParts.add` does, at the latest with the next chunk.
        """
        update_digest(self._digest, chunk)
        self._number += 1
        if self._number <= self._before.chunks:
            if self._number == self._before.chunks:
                self._compare()
            return
        if self._before.done:
            raise IdempotencyKeyReused
        await self.settle()
        await self._upload_budget.reserve_when_free(chunk.upload_bytes, self._room_wait_seconds)
        self._in_flight = asyncio.create_task(self._add(chunk, self._digest.digest()))

    async def end(self, *, skipped: int) -> None:
        """The part is done: a repeat is told so."""
        await self.settle()
        if self._number < self._before.chunks:
            raise IdempotencyKeyReused
        if not self._before.done:
            await self._open_jobs.add(self._part, None, self._digest.digest(), done=True, skipped=skipped)

    async def settle(self) -> bytes:
        """Wait for the chunk in flight. Returns the digest of the request so far. Raises as `OpenJobParts.add` does."""
        task, self._in_flight = self._in_flight, None
        if task is not None:
            await task
        return self._digest.digest()

    async def stop(self) -> None:
        """Nothing more comes, whatever becomes of what is in flight."""
        with suppress(Exception):
            await self.settle()

    def _compare(self) -> None:
        if self._digest.digest() != self._before.digest:
            raise IdempotencyKeyReused

    async def _add(self, chunk: Chunk, digest: bytes) -> None:
        try:
            await self._open_jobs.add(self._part, chunk, digest)
        finally:
            self._upload_budget.release(chunk.upload_bytes)
