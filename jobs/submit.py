"""Submitting: bytes first, then one script that accepts or refuses the whole job."""

import asyncio
import logging
from dataclasses import dataclass

import orjson
from hiredis import ReplyError

from jobs import keys
from jobs.connection import Command, NotSent, OutcomeUnknown
from jobs.errors import DarkroomError, QueueFull, QuotaExceeded, StoreUnavailable
from jobs.ids import new_id, to_text
from jobs.link import StoreLink, is_noscript, refusal
from jobs.records import LANE_CODE, Lane
from jobs.rows import job_key, upload_key

log = logging.getLogger(__name__)

_READ_WAITING: Command = ("HGET", keys.STATS, "uploads")
_RESOLVE_MARGIN_SECONDS = 0.01  # between this process's idea of the server's clock and that clock
_REFUSALS: dict[bytes, type[DarkroomError]] = {
    b"queue_full": QueueFull,
    b"quota_exceeded": QuotaExceeded,
    b"late": StoreUnavailable,
    b"upload_lost": StoreUnavailable,
    b"exists": StoreUnavailable,
}


@dataclass(slots=True)
class Chunk:
    """Consecutive images of a submission on their way into the store."""

    names: list[str | None]
    upload_bytes: int
    data: bytes | None
    """Packed upload bytes, or None once `Submitter.write_upload` has written them."""


@dataclass(slots=True)
class Submission:
    """A job that is not accepted yet."""

    id: bytes
    owner: str
    model: str
    lane: Lane
    top_k: int
    chunks: list[Chunk]


class UploadRoom:
    """What is left of the budget for upload bytes, of which the store counts those of accepted jobs alone.

    `open_bytes` are those of uploads that are still coming in, here in memory or written ahead. Other API processes
    are taken to hold as much: then all together never hold more than the budget, however the load is spread.
    """

    def __init__(self, budget_bytes: int, processes: int) -> None:
        self.open_bytes = 0
        self._budget_bytes = budget_bytes
        self._processes = processes

    @property
    def for_jobs_bytes(self) -> int:
        """What accepted jobs may have."""
        return self._budget_bytes - self.open_bytes * self._processes

    def take(self, size: int) -> None:
        """Raises QueueFull where there is no room even without the jobs that wait."""
        self.open_bytes += size
        self.check(0)

    def check(self, waiting_bytes: int) -> None:
        """Raises QueueFull where there is no room beside so many bytes of accepted jobs."""
        if waiting_bytes > self.for_jobs_bytes:
            raise QueueFull("There is no room for more uploads now.")


class Submitter:
    def __init__(self, link: StoreLink, *, owner_pending_items_max: int, processes: int = 1) -> None:
        self.room = UploadRoom(link.settings.uploads_budget_bytes, processes)
        self._link = link
        self._settings = link.settings
        self._pending_max = owner_pending_items_max

    async def new_id(self, owner: str) -> bytes:
        """An id for a job to come."""
        await self._link.greeted()
        return new_id(owner, self._link.secret)

    async def write_upload(self, job_id: bytes, number: int, chunk: Chunk) -> None:
        """Write a chunk's bytes ahead of its job. They vanish on their own if the job is never submitted.

        Raises:
            QueueFull, StoreUnavailable
        """
        set_upload = self._set_upload(job_id, number, chunk)
        reply, waiting = await self._link.run(self._link.uploads, set_upload, _READ_WAITING)
        if isinstance(reply, ReplyError):
            raise refusal(reply)
        self.room.check(int(waiting or 0))
        chunk.data = None

    async def discard_uploads(self, job_id: bytes, chunks: int) -> None:
        """Drop bytes that were written for a job that will not be submitted."""
        try:
            await self._link.uploads.execute(("UNLINK", *(upload_key(job_id, number) for number in range(chunks))))
        except (NotSent, OutcomeUnknown):
            log.warning("upload bytes of a refused job stay until their time to live is over")

    async def enqueue(self, submission: Submission) -> int:
        """Accept the job: once this returns, it will end. Returns when, in Redis time (ms).

        Raises:
            QueueFull, QuotaExceeded: refused; nothing is left behind.
            StoreUnavailable: not accepted, or with `outcome: unknown` among its extensions if that is not known.
        """
        await self._link.greeted()
        deadline_ms = int(self._link.now_ms() + self._link.timeout_seconds * 1000)
        sets = [
            self._set_upload(submission.id, number, chunk)
            for number, chunk in enumerate(submission.chunks)
            if chunk.data is not None
        ]
        script = self._link.script("enqueue")
        call: Command = ("EVALSHA", script.sha1, 0, *self._args(submission, deadline_ms))
        try:
            replies = await self._link.commits.execute(*sets, call)
            if is_noscript(replies[-1]):
                replies[-1:] = await self._link.commits.execute(("SCRIPT", "LOAD", script.source), call)
        except NotSent:
            raise StoreUnavailable from None
        except OutcomeUnknown:
            return await self._resolve(submission.id, deadline_ms)
        for reply in replies:
            if isinstance(reply, ReplyError):
                await self.discard_uploads(submission.id, len(submission.chunks))
                raise refusal(reply)
        verdict, *accepted_ms = replies[-1]
        if verdict == b"late":
            await self._link.set_clock()
        if verdict != b"ok":
            raise _REFUSALS[verdict]
        return int(accepted_ms[0])

    def _args(self, submission: Submission, deadline_ms: int) -> list[bytes | str | int]:
        args: list[bytes | str | int] = [
            submission.id,
            submission.owner,
            submission.model,
            LANE_CODE[submission.lane],
            submission.top_k,
            deadline_ms,
            self.room.for_jobs_bytes,
            self._settings.records_budget_bytes,
            self._pending_max,
        ]
        for chunk in submission.chunks:
            nameless = len(submission.chunks) == 1 and chunk.names == [None]
            args += [len(chunk.names), chunk.upload_bytes, b"" if nameless else orjson.dumps(chunk.names)]
        return args

    def _set_upload(self, job_id: bytes, number: int, chunk: Chunk) -> Command:
        assert chunk.data is not None
        ttl_ms = int(self._settings.upload_ttl_seconds * 1000)
        return ("SET", upload_key(job_id, number), chunk.data, "PX", ttl_ms)

    async def _resolve(self, job_id: bytes, deadline_ms: int) -> int:
        """After an ambiguous timeout: past the deadline the script refuses, so what stands then is the outcome."""
        await asyncio.sleep(max(0.0, deadline_ms - self._link.now_ms()) / 1000 + _RESOLVE_MARGIN_SECONDS)
        try:
            time, accepted_ms = await self._link.commits.execute(("TIME",), ("HGET", job_key(job_id), "a"))
        except (NotSent, OutcomeUnknown):
            time, accepted_ms = None, None
        if isinstance(accepted_ms, bytes):
            return int(accepted_ms)
        if isinstance(time, list) and accepted_ms is None:
            seconds, micros = map(int, time)
            if seconds * 1000 + micros // 1000 > deadline_ms:  # as the script reckons
                raise StoreUnavailable
        raise StoreUnavailable(
            "The job store stopped answering while it was given the job. Ask for the job later to see if it stands.",
            job_id=to_text(job_id),
            outcome="unknown",
        )
