"""Submits an upload of many images as it arrives, into an open job that is sealed at the end."""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from api.settings import ApiSettings
from api.submissions.chunk_sender import NOTHING_SENT, ChunkSender
from api.submissions.digests import request_digest, update_digest
from api.submissions.result import SubmitResult, submit_result
from api.submissions.single_chunk import SingleChunkSubmitter
from api.submissions.upload_streams import UploadStreams
from api.uploads.chunks import read_chunks
from api.uploads.source import UploadSource
from jobs.errors import (
    DarkroomError,
    IdempotencyKeyReused,
    InvalidRequest,
    JobNotFound,
    StoreUnavailable,
    UploadGone,
)
from jobs.ids import to_text
from jobs.records import JobState, Lane
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.open_job_parts import OpenJobParts, Part
from jobs.store.for_api.submission import Chunk, ExistingJob, Submission, accepted_job
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_budget import UploadBudget

NO_IMAGES = "The upload has no images: send at least one."

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Stream:
    """An upload, and the job under it once that is open."""

    submission: Submission
    renewal: AsyncExitStack
    """Keeps the job open."""
    part: Part | None = None
    sender: ChunkSender | None = None
    sent: bool = False
    """Whether a chunk was sent."""
    accepted_ms: int = 0
    may_be_sealed: bool = False

    def set_lane(self, lane: Lane) -> None:
        """Change the job's lane, before its first chunk is sent."""
        self.submission.lane = lane
        if self.part is not None:
            self.part.lane = lane


class StreamSubmitter:
    """The client sees one submit; the open job underneath lets workers start before the upload is complete."""

    def __init__(
        self,
        settings: ApiSettings,
        reader: JobReader,
        submitter: Submitter,
        open_jobs: OpenJobParts,
        upload_budget: UploadBudget,
        streams: UploadStreams,
        single_chunk: SingleChunkSubmitter,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._submitter = submitter
        self._open_jobs = open_jobs
        self._upload_budget = upload_budget
        self._streams = streams
        self._single_chunk = single_chunk

    async def submit(self, source: UploadSource, submission: Submission, lane: Lane | None) -> SubmitResult:
        """Submit all images of `source`. Without a `lane`, an upload of more than one chunk is bulk.

        Raises:
            As `SubmissionService.submit`.
        """
        async with self._streams.open(source, submission.owner):
            return await self._submit(source, submission, lane)

    async def _submit(self, source: UploadSource, submission: Submission, lane: Lane | None) -> SubmitResult:
        """With an Idempotency-Key, opens the job at the first byte, to claim the key; else at the second chunk."""
        submission.lane = lane or Lane.BULK
        async with AsyncExitStack() as renewal:
            stream = _Stream(submission, renewal)
            try:
                if submission.key and (existing := await self._begin(stream)) is not None:
                    return await self._replay(source, submission, existing)
                last = await read_chunks(source, partial(self._send, stream))
                if last is None:
                    raise InvalidRequest(NO_IMAGES)
                if stream.sender is None and not source.stats.skipped and not source.by_reference:
                    submission.lane = lane or Lane.INTERACTIVE
                    return await self._submit_single(submission, last)
                if not stream.sent and lane is None and not source.by_reference:
                    stream.set_lane(Lane.INTERACTIVE)
                await self._send(stream, last)
                await self._seal(stream, source.stats.skipped)
            except BaseException as error:
                if not await self._is_sealed_after_all(stream, error):
                    raise
        return await self._accepted(stream, source.stats.skipped)

    async def _submit_single(self, submission: Submission, chunk: Chunk) -> SubmitResult:
        """The bytes of the chunk count as open until the store has replied."""
        try:
            self._upload_budget.reserve(chunk.upload_bytes, submission.owner)  # counts them even if it raises
            submission.reserved_bytes = chunk.upload_bytes
            return await self._single_chunk.submit(submission, chunk)
        finally:
            self._upload_budget.release(chunk.upload_bytes, submission.owner)

    async def _begin(self, stream: "_Stream") -> ExistingJob | None:
        """Open the job, and keep it open while its bytes come; or return the one that its key made before."""
        submission = stream.submission
        outcome = await self._submitter.enqueue(submission, open_seconds=self._settings.hold_seconds)
        if isinstance(outcome, ExistingJob):
            return outcome
        part = Part(submission.id, submission.owner, submission.lane, self._settings.hold_seconds)
        part.quota = submission.quota
        stream.accepted_ms, stream.part = outcome, part
        stream.sender = ChunkSender(
            self._open_jobs,
            self._upload_budget,
            self._settings.room_wait_seconds_max,
            part,
            request_digest(submission),
            NOTHING_SENT,
        )
        await stream.renewal.enter_async_context(self._open_jobs.renewing(part))
        return None

    async def _send(self, stream: "_Stream", chunk: Chunk) -> None:
        if stream.sender is None:
            await self._begin(stream)
        assert stream.sender is not None
        stream.sent = True
        try:
            await stream.sender.send(chunk)
        except JobNotFound:
            raise UploadGone from None

    async def _seal(self, stream: "_Stream", skipped: int) -> None:
        assert stream.sender is not None
        job = stream.submission
        try:
            fingerprint = await stream.sender.flush()
            stream.may_be_sealed = True
            await self._open_jobs.seal(
                job.id, job.owner, fingerprint=fingerprint, skipped=skipped, chunks=stream.sender.added
            )
        except JobNotFound:
            raise UploadGone from None

    async def _accepted(self, stream: "_Stream", skipped: int) -> SubmitResult:
        assert stream.sender is not None
        try:
            return SubmitResult(await self._reader.get(stream.submission.id, stream.submission.owner))
        except StoreUnavailable:  # the job is accepted all the same, and a repeat would double it
            job = accepted_job(stream.submission, stream.accepted_ms)
            job.state, job.total, job.chunks = JobState.QUEUED, stream.sender.items_added, stream.sender.added
            job.skipped = skipped
            return SubmitResult(job, current=False)

    async def _replay(self, source: UploadSource, submission: Submission, existing: ExistingJob) -> SubmitResult:
        """The job of the first request with this key, if this request has the same parameters and content."""
        digest = request_digest(submission)

        async def compare(chunk: Chunk) -> None:
            update_digest(digest, chunk)

        if (last := await read_chunks(source, compare)) is not None:
            update_digest(digest, last)
        if digest.digest() != existing.fingerprint:
            raise IdempotencyKeyReused
        return await submit_result(submission, existing, self._reader)

    async def _is_sealed_after_all(self, stream: "_Stream", error: BaseException) -> bool:
        """Cancel the job of a broken stream; delete it if no chunk was added, as if it never existed.

        Returns True if it was sealed, and only the reply to that was lost.
        """
        if stream.sender is None:
            return False
        await stream.sender.stop()
        submission = stream.submission
        try:
            if stream.sender.added == 0:
                await self._reader.delete(submission.id, submission.owner)
                return False
            if not await self._reader.cancel_if_open(submission.id, submission.owner):
                return isinstance(error, StoreUnavailable)
        except DarkroomError:
            fields = {"job_id": to_text(submission.id)}
            log.warning("cannot cancel the job of a broken upload; it stays open until its deadline", extra=fields)
            if stream.may_be_sealed and isinstance(error, DarkroomError):
                error.extensions["outcome"] = "unknown"
        if isinstance(error, DarkroomError):
            error.extensions["job_id"] = to_text(submission.id)
        return False
