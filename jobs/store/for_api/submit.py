"""Submits: the upload bytes are written first, then a script accepts or refuses the job."""

import asyncio
import logging

from hiredis import ReplyError

from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    QueueFull,
    QuotaExceeded,
    StoreUnavailable,
    Unauthorized,
)
from jobs.ids import new_id, to_text
from jobs.records import LANE_CODE
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.for_api.submission import Chunk, ExistingJob, Submission
from jobs.store.for_api.submit_batch import SubmitBatches
from jobs.store.for_api.upload_budget import UploadBudget
from jobs.store.job_hash import job_key, upload_key
from jobs.store.keys import FIELDS
from jobs.store.wire import Command
from jobs.tracing import current_traceparent

log = logging.getLogger(__name__)

_READ_WAITING: Command = ("HGET", keys.STATS, "uploads")
_IN_BATCH_BYTES_MAX = 256 << 10  # a larger chunk is written by itself, so that no small submit waits behind it
_RESOLVE_MARGIN_SECONDS = 0.01  # error of this process's copy of the server's clock
SHARE_FULL = "Your jobs take up the share of a budget that one owner may have."
_REFUSALS: dict[bytes, type[DarkroomError]] = {
    b"quota_exceeded": QuotaExceeded,
    b"late": StoreUnavailable,
    b"upload_lost": StoreUnavailable,
    b"exists": StoreUnavailable,
}


class Submitter:
    def __init__(self, client: StoreClient, upload_budget: UploadBudget, *, owner_pending_items_max: int) -> None:
        self._client = client
        self._upload_budget = upload_budget
        self._settings = client.settings
        self._owner_pending_items_max = owner_pending_items_max
        head = ("EVALSHA", client.script("enqueue").sha1, 0, client.settings.records_budget_bytes)
        self._batches = SubmitBatches(client, head)

    async def new_id(self, owner: str) -> bytes:
        """An id for a new job."""
        await self._client.ready()
        return new_id(owner, self._client.secret)

    def writes_ahead(self, chunk: Chunk) -> bool:
        """Whether the chunk is so large that its bytes are written by themselves."""
        return chunk.upload_bytes > _IN_BATCH_BYTES_MAX or chunk.belongs_in(self._client.spool)

    async def write_upload(self, submission: Submission, chunk: Chunk) -> None:
        """Write a chunk's bytes ahead of its job. They go by themselves if the job is never submitted.

        Raises:
            QueueFull, StoreUnavailable: nothing was written.
        """
        if chunk.belongs_in(self._client.spool):
            missing = max(0, chunk.upload_bytes - submission.reserved_bytes)
            try:
                self._upload_budget.reserve(missing, submission.owner)  # counts them even if it raises
                await chunk.move_to(self._client.spool, submission.id)
            finally:
                self._upload_budget.release(missing, submission.owner)
        else:
            try:
                await self._write_to_redis(submission, chunk)
            except BaseException:
                await self._discard_upload(submission.id)
                raise

    async def _write_to_redis(self, submission: Submission, chunk: Chunk) -> None:
        set_upload = self._set_upload(submission.id, chunk)
        reply, waiting = await self._client.run(self._client.uploads, set_upload, _READ_WAITING)
        if isinstance(reply, ReplyError):
            raise self._client.refusal(reply)
        self._upload_budget.check(int(waiting or 0), taken=submission.reserved_bytes)
        chunk.data = None

    async def _discard_upload(self, job_id: bytes) -> None:
        """Delete bytes that were written to Redis for a job that will not be submitted."""
        try:
            await self._client.uploads.execute(("UNLINK", upload_key(job_id, 0)))
        except (NotSent, OutcomeUnknown):
            log.warning("cannot delete upload bytes of a refused job; they expire on their own")

    async def enqueue(self, submission: Submission, *, open_seconds: float = 0) -> int | ExistingJob:
        """Submit the job: once this returns, the job will end. Returns when it was accepted, in Redis time (ms).

        A submission without a chunk becomes an open job with a deadline in `open_seconds`.

        Raises:
            QueueFull, QuotaExceeded, DailyQuotaExceeded, Unauthorized, IdempotencyInProgress, IdempotencyKeyReused:
                refused; nothing is left behind, and nothing counts against a quota.
            StoreUnavailable: not accepted; or with `outcome: unknown` in its extensions, possibly accepted.
        """
        if submission.chunk is None or (pointer := submission.chunk.pointer) is None:
            return await self._enqueue(submission, open_seconds)
        try:
            accepted = await self._enqueue(submission, open_seconds)
        except DarkroomError as error:
            if "outcome" not in error.extensions:
                await self._client.spool.discard(pointer.name)
            raise
        if isinstance(accepted, ExistingJob):
            await self._client.spool.discard(pointer.name)
        return accepted

    async def _enqueue(self, submission: Submission, open_seconds: float) -> int | ExistingJob:
        await self._client.ready()
        deadline_ms = int(self._client.now_ms() + self._client.timeout_seconds * 1000)
        chunk = submission.chunk
        try:
            args = self._args(submission, deadline_ms, open_seconds)
        except Unauthorized:  # the key has ended since the bytes were written
            await self._discard_upload(submission.id)
            raise
        set_upload, upload_bytes = None, 0
        if chunk is not None and chunk.data is not None:
            set_upload, upload_bytes = self._set_upload(submission.id, chunk), len(chunk.data)
        try:
            outcome, *details = await self._batches.submit(args, set_upload, upload_bytes)
        except NotSent:
            raise StoreUnavailable from None
        except OutcomeUnknown:
            return await self._resolve(submission.id, deadline_ms)
        if isinstance(outcome, ReplyError):
            await self._discard_upload(submission.id)
            raise self._client.refusal(outcome)
        return await self._accepted_ms(submission, outcome, *details)

    async def _accepted_ms(self, submission: Submission, outcome: bytes, *details: bytes) -> int | ExistingJob:
        """What `enqueue` returns for an outcome of the script. Raises the request error of a refusal."""
        match outcome:
            case b"ok":
                accepted_ms = int(details[0])
                if len(details) > 1:
                    submission.quota.set_used(int(details[1]), accepted_ms)
                return accepted_ms
            case b"earlier":
                earlier = ExistingJob(*details)
                if submission.fingerprint and earlier.fingerprint != submission.fingerprint:
                    raise IdempotencyKeyReused
                return earlier
            case b"in_progress":
                raise IdempotencyInProgress(job_id=to_text(details[0]))
            case b"queue_full":
                raise QueueFull(over_bytes=int(details[0]))
            case b"share_full":
                raise QueueFull(SHARE_FULL, over_bytes=int(details[0]))
            case b"daily_quota_exceeded":
                raise submission.quota.exceeded(int(details[0]), self._client.now_ms())
            case b"late":
                await self._client.set_clock()
        raise _REFUSALS[outcome]

    def _args(self, submission: Submission, deadline_ms: int, open_seconds: float) -> list[bytes | str | int]:
        chunk = submission.chunk
        args: list[bytes | str | int] = [
            submission.id,
            submission.owner,
            submission.model,
            LANE_CODE[submission.lane],
            submission.top_k,
            deadline_ms,
            self._upload_budget.for_jobs_bytes(submission.lane, taken=submission.reserved_bytes),
            "" if chunk is None or chunk.pointer is None else self._upload_budget.for_spool_bytes(submission.lane),
            *submission.quota.script_args(self._owner_pending_items_max),
            submission.key,
            submission.fingerprint,
            submission.webhook_url,
            submission.retry_of,
            current_traceparent(),
            submission.result_bytes,
        ]
        if chunk is None:
            return [*args, 0, int(open_seconds * 1000), ""]
        return [*args, len(chunk.names), chunk.upload_bytes, chunk.packed_names]

    def _set_upload(self, job_id: bytes, chunk: Chunk) -> Command:
        assert chunk.data is not None
        ttl_ms = int(self._settings.upload_ttl_seconds * 1000)
        return ("SET", upload_key(job_id, 0), chunk.data, "PX", ttl_ms)

    async def _resolve(self, job_id: bytes, deadline_ms: int) -> int:
        """Find out whether a submit without a reply ran. After its deadline the script refuses it: a read is final."""
        await asyncio.sleep(max(0.0, deadline_ms - self._client.now_ms()) / 1000 + _RESOLVE_MARGIN_SECONDS)
        try:
            time, accepted_ms = await self._client.commits.execute(
                ("TIME",), ("HGET", job_key(job_id), FIELDS["accepted_ms"])
            )
        except (NotSent, OutcomeUnknown):
            time, accepted_ms = None, None
        if isinstance(accepted_ms, bytes):
            return int(accepted_ms)
        if isinstance(time, list) and accepted_ms is None:
            seconds, micros = map(int, time)
            if seconds * 1000 + micros // 1000 > deadline_ms:  # as in enqueue.lua
                raise StoreUnavailable
        raise StoreUnavailable(
            "The job store stopped replying during the submit. Read the job later to see whether it was accepted.",
            job_id=to_text(job_id),
            outcome="unknown",
        )
