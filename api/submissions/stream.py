"""Submits an upload of many images as it arrives, into an open job that is sealed at the end."""

import logging

from api.settings import ApiSettings
from api.submissions.chunk_sender import NOTHING_SENT, ChunkSender
from api.submissions.digests import request_digest, update_digest
from api.submissions.result import SubmitResult, submit_result
from api.submissions.single_chunk import SingleChunkSubmitter
from api.submissions.upload_streams import UploadStreams
from api.uploads.chunks import read_chunks
from api.uploads.source import UploadSource
from jobs.errors import DarkroomError, IdempotencyKeyReused, InvalidRequest
from jobs.ids import to_text
from jobs.records import Lane
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.open_job_parts import OpenJobParts, Part
from jobs.store.for_api.submit import Chunk, ExistingJob, Submission, Submitter
from jobs.store.for_api.upload_budget import UploadBudget

NO_IMAGES = "The upload has no images."

log = logging.getLogger(__name__)


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
        async with self._streams.open(source):
            return await self._submit(source, submission, lane)

    async def _submit(self, source: UploadSource, submission: Submission, lane: Lane | None) -> SubmitResult:
        """With an Idempotency-Key, opens the job at the first byte, to claim the key; else at the second chunk."""
        sender: ChunkSender | None = None
        submission.lane = lane or Lane.BULK

        async def send(chunk: Chunk) -> None:
            nonlocal sender
            if sender is None:
                await self._submitter.enqueue(submission, open_seconds=self._settings.hold_seconds)
                sender = self._sender(submission)
            await sender.send(chunk)

        try:
            if submission.key:
                outcome = await self._submitter.enqueue(submission, open_seconds=self._settings.hold_seconds)
                if isinstance(outcome, ExistingJob):
                    return await self._replay(source, submission, outcome)
                sender = self._sender(submission)
            last = await read_chunks(source, send)
            if last is None:
                raise InvalidRequest(NO_IMAGES)
            if sender is None and not source.stats.skipped and not source.by_reference:
                submission.lane = lane or Lane.INTERACTIVE
                return await self._single_chunk.submit(submission, last)
            await send(last)
            assert sender is not None
            await self._open_jobs.seal(
                submission.id, submission.owner, fingerprint=await sender.flush(), skipped=source.stats.skipped
            )
        except BaseException as error:
            if sender is not None:
                await self._abandon(submission, sender, error)
            raise
        return SubmitResult(await self._reader.get(submission.id, submission.owner))

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

    async def _abandon(self, submission: Submission, sender: ChunkSender, error: BaseException) -> None:
        """Cancel the job of a broken stream; delete it if no chunk was added, as if it never existed."""
        await sender.stop()
        try:
            if sender.added == 0:
                await self._reader.delete(submission.id, submission.owner)
                return
            await self._reader.cancel(submission.id, submission.owner)
        except DarkroomError:
            log.warning("cannot cancel the job of a broken upload; it stays open until its deadline")
        if isinstance(error, DarkroomError):
            error.extensions["job_id"] = to_text(submission.id)

    def _sender(self, submission: Submission) -> ChunkSender:
        part = Part(submission.id, submission.owner, submission.lane, self._settings.hold_seconds)
        return ChunkSender(
            self._open_jobs,
            self._upload_budget,
            self._settings.room_wait_seconds_max,
            part,
            request_digest(submission),
            NOTHING_SENT,
        )
