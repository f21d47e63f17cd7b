"""Submitting: bytes first, then one script that accepts or refuses the job."""

import asyncio
import logging
from dataclasses import dataclass
from itertools import chain

import orjson
from hiredis import ReplyError

from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    QueueFull,
    QuotaExceeded,
    StoreUnavailable,
)
from jobs.ids import new_id, to_text
from jobs.item_codes import ItemCode
from jobs.records import LANE_CODE, Item, ItemState, Job, JobState, Lane
from jobs.store import keys
from jobs.store.client import StoreClient, is_noscript
from jobs.store.job_hash import job_key, upload_key
from jobs.store.pipeline import NotSent, OutcomeUnknown
from jobs.store.upload_budget import UploadBudget
from jobs.store.wire import Command, Reply

log = logging.getLogger(__name__)

_READ_WAITING: Command = ("HGET", keys.STATS, "uploads")
BATCH_SUBMITS_MAX = 32  # bounds the keys that one call of the script touches: six a submit where no owner comes twice
_RESOLVE_MARGIN_SECONDS = 0.01  # between this process's idea of the server's clock and that clock
_REFUSALS: dict[bytes, type[DarkroomError]] = {
    b"quota_exceeded": QuotaExceeded,
    b"late": StoreUnavailable,
    b"upload_lost": StoreUnavailable,
    b"exists": StoreUnavailable,
}


@dataclass
class Chunk:
    """Consecutive images of a submission on their way into the store."""

    names: list[str | None]
    upload_bytes: int
    data: bytes | None
    """Packed upload bytes, or None once `Submitter.write_upload` has written them."""
    by_reference: bool = False
    """Whether they are URLs, which a worker fetches first."""
    only_refused: ItemCode | None = None
    """Why the only image was refused, where there is just one."""

    @property
    def packed_names(self) -> bytes:
        """As the store keeps them."""
        return b"" if self.names == [None] else orjson.dumps(self.names)


@dataclass(slots=True)
class Submission:
    """A job that is not accepted yet: one chunk, or none where it is to stay open for more."""

    id: bytes
    owner: str
    model: str
    lane: Lane
    top_k: int
    chunk: Chunk | None = None
    key: bytes = b""
    """Digest of the Idempotency-Key."""
    fingerprint: bytes = b""
    """Digest of what was asked and sent; of an open job's content, `OpenJobParts.seal` gets it."""
    webhook_url: str = ""
    retry_of: bytes = b""
    seals_itself: bool = False
    """Whether an open job is sealed at its deadline, rather than canceled."""


@dataclass(frozen=True, slots=True)
class ExistingJob:
    """What an Idempotency-Key made before."""

    job_id: bytes
    fingerprint: bytes


def accepted_job(submission: Submission, accepted_ms: int) -> Job:
    """The job of a submission that the store accepted just now, without reading it back."""
    names = [] if submission.chunk is None else submission.chunk.names
    return Job(
        id=submission.id,
        owner=submission.owner,
        model=submission.model,
        lane=submission.lane,
        state=JobState.OPEN if submission.chunk is None else JobState.QUEUED,
        top_k=submission.top_k,
        accepted_ms=accepted_ms,
        ended_ms=None,
        total=len(names),
        succeeded=0,
        failed=0,
        chunks=0 if submission.chunk is None else 1,
        failure_code=None,
        webhook_url=submission.webhook_url or None,
        retry_of=submission.retry_of or None,
        single_item=Item(0, names[0], ItemState.PENDING, None, None) if len(names) == 1 else None,
    )


class _Member:
    """One submission of a batch."""

    __slots__ = ("args", "set_upload", "upload_bytes", "verdict")

    def __init__(self, args: list[bytes | str | int], set_upload: Command | None, upload_bytes: int) -> None:
        self.args = args
        self.set_upload = set_upload
        self.upload_bytes = upload_bytes
        self.verdict: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()


class _Batch:
    """Submissions that go into one call of the script: what they have in common costs the server once."""

    def __init__(self, head: Command) -> None:
        self.members = list[_Member]()
        self.closed = False
        self._upload_bytes = 0
        self._head = head

    def takes(self, member: _Member, submits_max: int, bytes_max: int) -> bool:
        """Whether this one may join."""
        full = len(self.members) >= submits_max or self._upload_bytes + member.upload_bytes > bytes_max
        return not self.closed and not full

    def add(self, member: _Member) -> None:
        self.members.append(member)
        self._upload_bytes += member.upload_bytes

    def callers(self) -> int:
        return len(self.members)

    def commands(self) -> list[Command]:
        self.closed = True
        # Those whose client went away are left out; their bytes were never written.
        self.members = [member for member in self.members if not member.verdict.done()]
        if not self.members:
            return []
        return [*(it.set_upload for it in self.members if it.set_upload is not None), self.call()]

    def call(self) -> Command:
        return (*self._head, *chain.from_iterable(member.args for member in self.members))

    def settle(self, replies: list[Reply]) -> None:
        """Give each member its verdict, or the error of the server that stands in its way."""
        *written, verdicts = replies
        uploads = iter(written)
        for at, member in enumerate(self.members):
            upload = next(uploads) if member.set_upload is not None else None
            refused = next((it for it in (upload, verdicts) if isinstance(it, ReplyError)), None)
            if not member.verdict.done():
                member.verdict.set_result([refused] if refused is not None else verdicts[at])

    def fail(self, error: Exception) -> None:
        self.closed = True  # also where it was never sent: nobody may join what is over
        for member in self.members:
            if not member.verdict.done():
                member.verdict.set_exception(error)


class Submitter:
    def __init__(self, client: StoreClient, upload_budget: UploadBudget, *, owner_pending_items_max: int) -> None:
        self._client = client
        self._upload_budget = upload_budget
        self._settings = client.settings
        self._pending_max = owner_pending_items_max
        self._batch: _Batch | None = None
        self._sending = set[asyncio.Task[None]]()

    async def new_id(self, owner: str) -> bytes:
        """An id for a job to come."""
        await self._client.ready()
        return new_id(owner, self._client.secret)

    async def write_upload(self, job_id: bytes, chunk: Chunk) -> None:
        """Write a chunk's bytes ahead of its job. They vanish on their own if the job is never submitted.

        Raises:
            QueueFull, StoreUnavailable
        """
        set_upload = self._set_upload(job_id, chunk)
        reply, waiting = await self._client.run(self._client.uploads, set_upload, _READ_WAITING)
        if isinstance(reply, ReplyError):
            raise self._client.refusal(reply)
        self._upload_budget.check(int(waiting or 0))
        chunk.data = None

    async def discard_upload(self, job_id: bytes) -> None:
        """Drop bytes that were written for a job that will not be submitted."""
        try:
            await self._client.uploads.execute(("UNLINK", upload_key(job_id, 0)))
        except (NotSent, OutcomeUnknown):
            log.warning("upload bytes of a refused job stay until their time to live is over")

    async def enqueue(self, submission: Submission, *, open_seconds: float = 0) -> int | ExistingJob:
        """Accept the job: once this returns, it will end. Returns when, in Redis time (ms).

        A submission without a chunk becomes an open job, whose deadline is in `open_seconds`.

        Raises:
            QueueFull, QuotaExceeded, IdempotencyInProgress, IdempotencyKeyReused: refused; nothing is left behind.
            StoreUnavailable: not accepted, or with `outcome: unknown` among its extensions if that is not known.
        """
        await self._client.ready()
        deadline_ms = int(self._client.now_ms() + self._client.timeout_seconds * 1000)
        chunk = submission.chunk
        args = self._args(submission, deadline_ms, open_seconds)
        if chunk is None or chunk.data is None:
            member = _Member(args, None, 0)
        else:
            member = _Member(args, self._set_upload(submission.id, chunk), len(chunk.data))
        self._join(member)
        try:
            verdict = await member.verdict
        except NotSent:
            raise StoreUnavailable from None
        except OutcomeUnknown:
            return await self._resolve(submission.id, deadline_ms)
        if isinstance(verdict[0], ReplyError):
            await self.discard_upload(submission.id)
            raise self._client.refusal(verdict[0])
        return await self._verdict(submission, *verdict)

    def _join(self, member: _Member) -> None:
        """Into the batch that waits to be sent, or a new one."""
        batch = self._batch
        submits_max = min(BATCH_SUBMITS_MAX, self._client.group_submits_max)
        if batch is None or not batch.takes(member, submits_max, self._client.group_bytes_max):
            budget = self._settings.records_budget_bytes
            batch = self._batch = _Batch(("EVALSHA", self._client.script("enqueue").sha1, 0, budget, self._pending_max))
            task = asyncio.create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        batch.add(member)

    async def _send(self, batch: _Batch) -> None:
        try:
            replies = await self._client.commits.execute_batch(batch)
            if replies and is_noscript(replies[-1]):
                source = self._client.script("enqueue").source
                replies[-1:] = (await self._client.commits.execute(("SCRIPT", "LOAD", source), batch.call()))[1:]
            if replies:
                batch.settle(replies)
        except Exception as error:
            batch.fail(error)

    async def _verdict(self, submission: Submission, verdict: bytes, *more: bytes) -> int | ExistingJob:
        match verdict:
            case b"ok":
                return int(more[0])
            case b"earlier":
                earlier = ExistingJob(*more)
                if submission.fingerprint and earlier.fingerprint != submission.fingerprint:
                    raise IdempotencyKeyReused
                return earlier
            case b"in_progress":
                raise IdempotencyInProgress(job_id=to_text(more[0]))
            case b"queue_full":
                raise QueueFull(over_bytes=int(more[0]))
            case b"late":
                await self._client.set_clock()
        raise _REFUSALS[verdict]

    def _args(self, submission: Submission, deadline_ms: int, open_seconds: float) -> list[bytes | str | int]:
        args: list[bytes | str | int] = [
            submission.id,
            submission.owner,
            submission.model,
            LANE_CODE[submission.lane],
            submission.top_k,
            deadline_ms,
            self._upload_budget.for_jobs_bytes(submission.lane),
            submission.key,
            submission.fingerprint,
            submission.webhook_url,
            submission.retry_of,
        ]
        if submission.chunk is None:
            return [*args, 0, int(open_seconds * 1000), "s" if submission.seals_itself else "x"]
        return [*args, len(submission.chunk.names), submission.chunk.upload_bytes, submission.chunk.packed_names]

    def _set_upload(self, job_id: bytes, chunk: Chunk) -> Command:
        assert chunk.data is not None
        ttl_ms = int(self._settings.upload_ttl_seconds * 1000)
        return ("SET", upload_key(job_id, 0), chunk.data, "PX", ttl_ms)

    async def _resolve(self, job_id: bytes, deadline_ms: int) -> int:
        """After an ambiguous timeout: past the deadline the script refuses, so what stands then is the outcome."""
        await asyncio.sleep(max(0.0, deadline_ms - self._client.now_ms()) / 1000 + _RESOLVE_MARGIN_SECONDS)
        try:
            time, accepted_ms = await self._client.commits.execute(("TIME",), ("HGET", job_key(job_id), "a"))
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
