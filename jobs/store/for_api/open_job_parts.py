"""Open jobs: chunks are added to them until they are sealed.

Chunks belong to parts, and several parts may be added concurrently. Each part has one holder, and a count and a digest
of its chunks, so that an add whose reply was lost may be repeated, and an interrupted part can be continued.
"""

import asyncio
import os
from dataclasses import dataclass, field

from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    JobEmpty,
    JobEnded,
    JobNotFound,
    JobSealed,
    QueueFull,
    QuotaExceeded,
    StoreUnavailable,
    UploadTooLarge,
)
from jobs.records import Lane
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.submit import Chunk
from jobs.store.for_api.upload_budget import UploadBudget
from jobs.store.wire import Command

_RETRY_SECONDS = 0.1
_REFUSALS: dict[bytes, type[DarkroomError]] = {
    b"absent": JobNotFound,
    b"ended": JobEnded,
    b"sealed": JobSealed,
    b"empty": JobEmpty,
    b"in_progress": IdempotencyInProgress,
    b"quota_exceeded": QuotaExceeded,
    b"upload_too_large": UploadTooLarge,
    b"upload_lost": StoreUnavailable,
}


@dataclass(frozen=True, slots=True)
class OpenJobLimits:
    """How much an open job accepts, and for how long its callers wait."""

    owner_pending_items_max: int
    job_items_max: int
    room_wait_seconds_max: float
    hold_seconds: float
    """How long a part stays with its holder after its last add."""


@dataclass(slots=True)
class Part:
    """One upload into an open job, as its holder sees it."""

    job_id: bytes
    owner: str
    lane: Lane
    open_seconds: float
    """Each add moves the job's deadline to so many seconds from now."""
    name: bytes = b""
    """8 bytes that distinguish it from the job's other parts; b"" if the job has only one."""
    token: bytes = field(default_factory=lambda: os.urandom(8))
    chunks: int = 0
    """How many chunks of this part the job has."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a part was added before."""

    chunks: int
    digest: bytes
    done: bool


class OpenJobParts:
    def __init__(self, client: StoreClient, upload_budget: UploadBudget, limits: OpenJobLimits) -> None:
        self._client = client
        self._upload_budget = upload_budget
        self._limits = limits

    async def begin(self, part: Part) -> Progress:
        """Become the part's holder, unless the part is done.

        Raises:
            IdempotencyInProgress: another caller holds it.
            JobNotFound, JobSealed, JobEnded, StoreUnavailable
        """
        outcome, *details = await self._call(part, "begin")
        if outcome not in (b"ok", b"earlier"):
            raise _REFUSALS[outcome]
        return Progress(int(details[0]), details[1], outcome == b"earlier")

    async def leave(self, part: Part) -> None:
        """Release an interrupted part: another caller can continue it at once, not only after `hold_seconds`."""
        await self._call(part, "begin", hold_seconds=0)

    async def add(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool = False, skipped: int = 0
    ) -> None:
        """Add the part's next chunk, or only mark the part as done. Waits while the budget or the store is unavailable.

        Raises:
            QueueFull: the budget was used up for `room_wait_seconds_max`.
            QuotaExceeded, UploadTooLarge, IdempotencyInProgress, JobNotFound, JobSealed, JobEnded, StoreUnavailable
        """
        until = asyncio.get_running_loop().time() + self._limits.room_wait_seconds_max
        staged = False
        while True:
            try:
                return await self._add_once(part, chunk, digest, done=done, skipped=skipped, staged=staged)
            except (QueueFull, StoreUnavailable) as error:
                if asyncio.get_running_loop().time() >= until:
                    raise
                staged = isinstance(error, QueueFull) and error.over_bytes > 0
                await asyncio.sleep(_RETRY_SECONDS)

    async def seal(self, job_id: bytes, owner: str, *, fingerprint: bytes = b"", skipped: int = 0) -> None:
        """Seal the job: it takes no more parts. No effect on a job that is sealed already.

        Raises:
            JobEmpty, JobNotFound, JobEnded, StoreUnavailable
        """
        part = Part(job_id, owner, Lane.BULK, 0)
        (outcome, *_) = await self._call(part, "seal", fingerprint, skipped)
        if outcome != b"ok":
            raise _REFUSALS[outcome]

    async def _add_once(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool, skipped: int, staged: bool
    ) -> None:
        """`staged`: an earlier attempt has written the bytes already."""
        args: list[bytes | str | int] = [
            part.chunks,
            digest,
            int(done),
            skipped,
            self._upload_budget.for_jobs_bytes(part.lane, taken=0 if chunk is None else chunk.upload_bytes),
            self._client.settings.records_budget_bytes,
            self._limits.owner_pending_items_max,
            self._limits.job_items_max,
        ]
        bytes_first: Command | None = None
        if chunk is not None:
            assert chunk.data is not None
            key = keys.UPLOAD.encode() + part.job_id + part.token
            args += [key, len(chunk.names), chunk.upload_bytes, chunk.packed_names, int(chunk.by_reference)]
            if not staged:
                ttl_ms = int(self._client.settings.upload_ttl_seconds * 1000)
                bytes_first = ("SET", key, chunk.data, "PX", ttl_ms)
        outcome, *details = await self._call(part, "add", *args, after=bytes_first)
        if outcome == b"queue_full":
            raise QueueFull(over_bytes=max(1, int(details[0])))
        if outcome != b"ok":
            raise _REFUSALS[outcome]
        part.chunks += chunk is not None

    async def _call(
        self,
        part: Part,
        command: str,
        *args: bytes | str | int,
        after: Command | None = None,
        hold_seconds: float | None = None,
    ) -> list[bytes]:
        hold_ms = int(1000 * (self._limits.hold_seconds if hold_seconds is None else hold_seconds))
        fixed = (part.job_id, part.owner, part.name, part.token, hold_ms, int(part.open_seconds * 1000), command)
        reply: list[bytes] = await self._client.call("part", *fixed, *args, after=after)
        return reply
