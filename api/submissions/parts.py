"""Open jobs: a client opens one, adds parts to it, in parallel if it likes, and seals it."""

from contextlib import suppress

from starlette.requests import Request

from api.auth.keys import ApiKey
from api.settings import ApiSettings
from api.submissions.chunk_sender import ChunkSender
from api.submissions.digests import part_digest, part_name, request_digest
from api.submissions.result import SubmitResult, submit_result
from api.submissions.stream import NO_IMAGES
from api.submissions.upload_streams import UploadStreams
from api.uploads.body import Body
from api.uploads.chunks import read_chunks
from api.uploads.content_type import open_source
from api.uploads.source import UploadSource
from api.uploads.zip_spool import ZipSpools
from jobs.errors import DarkroomError, InvalidRequest, StoreUnavailable
from jobs.records import Job, Lane
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.open_job_parts import OpenJobParts, Part, Progress
from jobs.store.for_api.submission import Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_budget import UploadBudget


class OpenJobService:
    def __init__(
        self,
        settings: ApiSettings,
        reader: JobReader,
        submitter: Submitter,
        open_jobs: OpenJobParts,
        upload_budget: UploadBudget,
        streams: UploadStreams,
        zip_spools: ZipSpools,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._submitter = submitter
        self._open_jobs = open_jobs
        self._upload_budget = upload_budget
        self._streams = streams
        self._zip_spools = zip_spools

    async def open(self, submission: Submission, lane: Lane | None) -> SubmitResult:
        """Open a job that takes parts until it is sealed.

        Raises:
            As `Submitter.enqueue`.
        """
        submission.lane = lane or Lane.BULK
        submission.fingerprint = request_digest(submission).digest() if submission.key else b""
        outcome = await self._submitter.enqueue(submission, open_seconds=self._settings.open_job_seconds_max)
        return await submit_result(submission, outcome, self._reader)

    async def add(self, request: Request, job: Job, caller: ApiKey, key: str) -> SubmitResult:
        """Read the body as a part of an open job. Chunks that were added before an error stay in the job.

        With an Idempotency-Key `key`, a repeat of a part that broke off continues it.

        Raises:
            JobSealed, JobEnded, JobNotFound: the job takes no parts.
            And as `SubmissionService.submit`.
        """
        part = Part(job.id, job.owner, job.lane, self._settings.open_job_seconds_max, part_name(key))
        part.quota = caller.quota
        body = Body(request, self._upload_budget, self._settings, job.owner)
        try:
            source = await open_source(body, self._settings, self._zip_spools)
            async with self._streams.open(source, job.owner):
                previous = await self._open_jobs.begin(part)
                async with self._open_jobs.renewing(part):
                    added = await self._send(body, source, part, previous)
        finally:
            body.close()
        try:
            return SubmitResult(await self._reader.get(job.id, job.owner), replayed=previous.done)
        except StoreUnavailable:  # the part is added all the same: the job as it was before, with these images
            job.total += added
            return SubmitResult(job, replayed=previous.done, current=False)

    async def seal(self, job_id: bytes, owner: str) -> None:
        """Raises as `OpenJobParts.seal` does."""
        await self._open_jobs.seal(job_id, owner)

    async def _send(self, body: Body, source: UploadSource, part: Part, previous: Progress) -> int:
        """How many images were added."""
        sender = ChunkSender(
            self._open_jobs,
            self._upload_budget,
            self._settings.room_wait_seconds_max,
            part,
            part_digest(),
            previous,
        )
        try:
            last = await read_chunks(source, sender.send)
            if last is None:
                raise InvalidRequest(NO_IMAGES)
            body.close()  # from here on the sender counts these bytes
            await sender.send(last)
            await sender.finish(skipped=source.stats.skipped)
            return sender.items_added
        except BaseException:
            await sender.stop()
            with suppress(DarkroomError):
                await self._open_jobs.leave(part)
            raise
