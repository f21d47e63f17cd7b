"""Open jobs: chunks are added to them until they are sealed.

Chunks belong to parts, and several parts may be added concurrently. Each part has one holder, and a count and a digest
of its chunks, so that an add whose reply was lost may be repeated, and an interrupted part can be continued.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
    UploadGone,
    UploadTooLarge,
)
from jobs.records import LANE_CODE, Lane
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.item_quota import UNLIMITED, ItemQuota
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.for_api.submission import Chunk
from jobs.store.for_api.submit import SHARE_FULL
from jobs.store.for_api.upload_budget import UploadBudget
from jobs.store.wire import Command

RENEWALS_A_HOLD = 3  # of a part, while its chunks come slowly
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
    b"lost": UploadGone,
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
    """Of the job; the first chunk of a job may still change it."""
    open_seconds: float
    """Each add moves the job's deadline to so many seconds from now."""
    name: bytes = b""
    """8 bytes that distinguish it from the job's other parts; b"" if the job has only one."""
    token: bytes = field(default_factory=lambda: os.urandom(8))
    chunks: int = 0
    """How many chunks of this part the job has."""
    quota: ItemQuota = UNLIMITED
    """That of the API key."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a part was added before."""

    chunks: int
    digest: bytes
    done: bool


def _check_room(outcome: bytes, *details: bytes) -> None:
    if outcome in (b"queue_full", b"share_full"):
        detail = SHARE_FULL if outcome == b"share_full" else ""
        raise QueueFull(detail, over_bytes=max(1, int(details[0])))


def _staged_key(part: Part) -> bytes:
    """Where a chunk's bytes lie until the script adds it."""
    return keys.UPLOAD.encode() + part.job_id + part.token


class OpenJobParts:
    def __init__(self, client: StoreClient, upload_budget: UploadBudget, limits: OpenJobLimits) -> None:
        self._client = client
        self._upload_budget = upload_budget
        self._limits = limits

    async def begin(self, part: Part) -> Progress:
        """Become the part's holder, or stay it, unless the part is done.

        Raises:
            IdempotencyInProgress: another caller holds it.
            QueueFull: there is no room for the record of a new part.
            JobNotFound, JobSealed, JobEnded, StoreUnavailable
        """
        outcome, *details = await self._begin(part)
        _check_room(outcome, *details)
        if outcome not in (b"ok", b"earlier"):
            raise _REFUSALS[outcome]
        return Progress(int(details[0]), details[1], outcome == b"earlier")

    @asynccontextmanager
    async def renewing(self, part: Part) -> AsyncIterator[None]:
        """Stay the part's holder and keep its job open until the end of the block, however slowly its chunks come.

        The block must end by itself if no bytes come.
        """
        task = asyncio.create_task(self._renew(part))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def leave(self, part: Part) -> None:
        """Release an interrupted part: another caller can continue it at once, not only after `hold_seconds`."""
        await self._begin(part, hold_seconds=0)

    async def add(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool = False, skipped: int = 0
    ) -> None:
        """Add the part's next chunk, or only mark the part as done. Waits while the budget or the store is unavailable.

        Raises:
            QueueFull: the budget was used up for `room_wait_seconds_max`.
            UploadGone: the store has lost chunks of this part.
            QuotaExceeded, DailyQuotaExceeded, Unauthorized, UploadTooLarge, IdempotencyInProgress, JobNotFound,
                JobSealed, JobEnded, StoreUnavailable
        """
        try:
            await self._add_when_possible(part, chunk, digest, done=done, skipped=skipped)
        except BaseException:
            if chunk is not None:  # bytes that wait for room are in no counter: they must not outlive the wait
                await self._unstage(part)
            raise

    async def _add_when_possible(
        self, part: Part, chunk: Chunk | None, digest: bytes, *, done: bool, skipped: int
    ) -> None:
        until = asyncio.get_running_loop().time() + self._limits.room_wait_seconds_max
        sent = staged = unknown = False
        while True:
            try:
                if chunk is not None and chunk.belongs_in(self._client.spool):
                    await chunk.move_to(self._client.spool, part.job_id)
                sent = True
                return await self._add_once(part, chunk, digest, done=done, skipped=skipped, staged=staged)
            except DarkroomError as error:
                unknown = unknown or (sent and isinstance(error, StoreUnavailable))  # it may have been added
                waits = isinstance(error, (QueueFull, StoreUnavailable)) and not isinstance(error, UploadGone)
                if not waits or asyncio.get_running_loop().time() >= until:
                    if chunk is not None and chunk.pointer is not None and not unknown:
                        await self._client.spool.discard(chunk.pointer.name)
                    raise
                staged = sent and isinstance(error, QueueFull) and error.over_bytes > 0
                await asyncio.sleep(_RETRY_SECONDS)

    async def seal(
        self, job_id: bytes, owner: str, *, fingerprint: bytes = b"", skipped: int = 0, chunks: int | None = None
    ) -> None:
        """Seal the job: it takes no more parts. No effect on a job that is sealed already. Waits for the store.

        `chunks` is how many chunks the job must have.

        Raises:
            UploadGone: it has another number of chunks.
            JobEmpty, JobNotFound, JobEnded, StoreUnavailable
        """
        until = asyncio.get_running_loop().time() + self._limits.room_wait_seconds_max
        while True:
            try:
                args = (job_id, owner, fingerprint, skipped, "" if chunks is None else chunks)
                outcome: bytes = await self._client.call("seal", *args)
                break
            except (QueueFull, StoreUnavailable):
                if asyncio.get_running_loop().time() >= until:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
        if outcome != b"ok":
            raise _REFUSALS[outcome]

    async def _renew(self, part: Part) -> None:
        while True:
            await asyncio.sleep(self._limits.hold_seconds / RENEWALS_A_HOLD)
            with suppress(DarkroomError):  # the next add reports it
                await self._begin(part)

    async def _unstage(self, part: Part) -> None:
        """Delete the bytes that were written for an add and not added. A second call has no effect."""
        with suppress(NotSent, OutcomeUnknown):  # they expire on their own
            await self._client.uploads.execute(("UNLINK", _staged_key(part)))

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
            "" if chunk is None or chunk.pointer is None else self._upload_budget.for_spool_bytes(part.lane),
            self._client.settings.records_budget_bytes,
            self._limits.job_items_max,
            *part.quota.script_args(self._limits.owner_pending_items_max),
        ]
        bytes_first: Command | None = None
        if chunk is not None:
            assert chunk.data is not None
            key = _staged_key(part)
            args += [key, len(chunk.names), chunk.upload_bytes, chunk.packed_names, int(chunk.by_reference)]
            args.append(LANE_CODE[part.lane])
            if not staged:
                ttl_ms = int(self._client.settings.upload_ttl_seconds * 1000)
                bytes_first = ("SET", key, chunk.data, "PX", ttl_ms)
        outcome, *details = await self._call(part, "add", *args, after=bytes_first)
        _check_room(outcome, *details)
        if outcome == b"daily_quota_exceeded":
            raise part.quota.exceeded(int(details[0]), self._client.now_ms())
        if outcome != b"ok":
            raise _REFUSALS[outcome]
        if details:
            part.quota.set_used(int(details[0]), self._client.now_ms())
        part.chunks += chunk is not None

    async def _begin(self, part: Part, *, hold_seconds: float | None = None) -> list[bytes]:
        records_max = self._client.settings.records_budget_bytes
        return await self._call(part, "begin", records_max, hold_seconds=hold_seconds)

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
