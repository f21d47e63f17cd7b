"""Open jobs: they take chunk after chunk until they are sealed.

Chunks come in parts, many parts at a time. Each part has one holder, and a count and a digest of what it has brought,
so that an add whose answer was lost may be repeated, and a part that broke off goes on where it was.
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
from jobs.store.client import StoreClient
from jobs.store.submit import Chunk
from jobs.store.upload_budget import UploadBudget
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
    """What an open job may take, and for how long it waits."""

    owner_pending_items_max: int
    job_items_max: int
    room_wait_seconds_max: float
    hold_seconds: float
    """For how long a part belongs to its holder without an add."""


@dataclass(slots=True)
class Part:
    """One upload into an open job, in the hands of this process."""

    job_id: bytes
    owner: str
    lane: Lane
    open_seconds: float
    """How far each add puts off the job's deadline."""
    name: bytes = b""
    """8 bytes that tell it from the job's other parts; b"" where a job has one."""
    token: bytes = field(default_factory=lambda: os.urandom(8))
    chunks: int = 0
    """How many the job has of this part."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part came before."""

    chunks: int
    digest: bytes
    done: bool


class OpenJobParts:
    def __init__(self, client: StoreClient, upload_budget: UploadBudget, limits: OpenJobLimits) -> None:
        self._client = client
        self._upload_budget = upload_budget
        self._limits = limits

    async def begin(self, part: Part) -> Progress:
        """Become the part's holder, unless it is done.

        Raises:
            IdempotencyInProgress: somebody else holds it.
            JobNotFound, JobSealed, JobEnded, StoreUnavailable
        """
        verdict, *more = await self._call(part, "begin")
        if verdict not in (b"ok", b"earlier"):
            raise _REFUSALS[verdict]
        return Progress(int(more[0]), more[1], verdict == b"earlier")

    async def leave(self, part: Part) -> None:
        """Let somebody else go on with a part that broke off, now rather than after `hold_seconds`."""
        await self._call(part, "begin", hold_seconds=0)

    async def add(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool = False, skipped: int = 0
    ) -> None:
        """Add the part's next chunk, or only note that it is done. Waits for room, and for a store that is away.

        Raises:
            QueueFull: there was no room for `room_wait_seconds_max`.
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
        """The job takes no more. A job that is sealed already stays so.

        Raises:
            JobEmpty, JobNotFound, JobEnded, StoreUnavailable
        """
        part = Part(job_id, owner, Lane.BULK, 0)
        (verdict, *_) = await self._call(part, "seal", fingerprint, skipped)
        if verdict != b"ok":
            raise _REFUSALS[verdict]

    async def _add_once(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool, skipped: int, staged: bool
    ) -> None:
        """`staged`: the bytes are there already, from a try before."""
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
        verdict, *more = await self._call(part, "add", *args, after=bytes_first)
        if verdict == b"queue_full":
            raise QueueFull(over_bytes=max(1, int(more[0])))
        if verdict != b"ok":
            raise _REFUSALS[verdict]
        part.chunks += chunk is not None

    async def _call(
        self,
        part: Part,
        what: str,
        *args: bytes | str | int,
        after: Command | None = None,
        hold_seconds: float | None = None,
    ) -> list[bytes]:
        hold_ms = int(1000 * (self._limits.hold_seconds if hold_seconds is None else hold_seconds))
        fixed = (part.job_id, part.owner, part.name, part.token, hold_ms, int(part.open_seconds * 1000), what)
        reply: list[bytes] = await self._client.call("part", *fixed, *args, after=after)
        return reply
