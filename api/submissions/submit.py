"""Submits a request body as a job."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from starlette.requests import Request

from api.auth.keys import ApiKey
from api.errors import JobNotEnded, NothingToRetry, UnknownModel
from api.results.completion import JobCompletions, wait_for
from api.settings import ApiSettings
from api.submissions.digests import key_digest
from api.submissions.result import SubmitResult
from api.submissions.single_chunk import SingleChunkSubmitter
from api.submissions.stream import StreamSubmitter
from api.uploads.body import Body
from api.uploads.chunks import build_chunk
from api.uploads.content_type import is_image, open_source, read_image
from api.uploads.source import UploadedImage, UploadSource
from api.uploads.zip_spool import ZipSpools
from jobs.codec import result_bytes
from jobs.errors import StoreUnavailable
from jobs.records import Job, Lane
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.for_api.submission import Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_budget import UploadBudget
from jobs.store.notices import apply_notice


class SubmissionService:
    def __init__(
        self,
        settings: ApiSettings,
        reader: JobReader,
        submitter: Submitter,
        upload_budget: UploadBudget,
        model_registry: ModelRegistry,
        completions: JobCompletions,
        single_chunk: SingleChunkSubmitter,
        stream: StreamSubmitter,
        zip_spools: ZipSpools,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._submitter = submitter
        self._upload_budget = upload_budget
        self._model_registry = model_registry
        self._completions = completions
        self._single_chunk = single_chunk
        self._stream = stream
        self._zip_spools = zip_spools

    async def prepare(
        self, caller: ApiKey, model: str | None = None, *, top_k: int = 5, webhook_url: str = "", key: str = ""
    ) -> Submission:
        """A submission with an id of its own and no content yet. `key` is the Idempotency-Key.

        Raises:
            UnknownModel, StoreUnavailable
        """
        job_id = await self._submitter.new_id(caller.owner)
        name = model or self._settings.default_model
        if not await self._model_registry.knows(name):
            raise UnknownModel(f"There is no model {name!r}.")
        submission = Submission(job_id, caller.owner, name, Lane.INTERACTIVE, top_k, webhook_url=webhook_url)
        submission.quota = caller.quota
        submission.result_bytes = result_bytes(top_k, self._model_registry.classes_max(name))
        if key:
            submission.key = key_digest(key)
        return submission

    async def submit(
        self, request: Request, submission: Submission, *, lane: Lane | None = None, field: str | None = None
    ) -> SubmitResult:
        """Read the body as the content of the job, unless an earlier request with its Idempotency-Key created one.

        Without a `lane`, one chunk of images is interactive and more are bulk. With `field`, the body is one image, in
        that multipart field.

        Raises:
            UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest, QueueFull, QuotaExceeded,
            DailyQuotaExceeded, Unauthorized, IdempotencyInProgress, IdempotencyKeyReused, StoreUnavailable: nothing is
                left in the store, except for a stream of more than one chunk: a canceled job, whose id is in the
                error's extensions.
        """
        body = Body(request, self._upload_budget, self._settings, submission.owner)
        submission.lane = lane or Lane.INTERACTIVE
        try:
            if field is None and is_image(body):
                body.set_deadline(self._settings.upload_seconds_max)
                return await self._submit_image(body, await read_image(body, self._settings), submission)
            source = await open_source(body, self._settings, self._zip_spools, field=field)
            if source.single:
                return await self._submit_image(body, await self._read_single(body, source), submission)
            return await self._stream.submit(source, submission, lane)
        finally:
            body.close()

    async def submit_and_wait(
        self,
        request: Request,
        submission: Submission,
        seconds: float,
        *,
        lane: Lane | None = None,
        field: str | None = None,
    ) -> SubmitResult:
        """Submit, then wait until the job ends, `seconds` have passed or the client disconnects.

        Subscribes before it submits: a worker may finish the job before the store's reply to the submit arrives.

        Raises:
            As `submit`. Once the job is accepted, a store that does not answer is not an error: see `SubmitResult`.
        """
        with self._completions.subscribe(submission.id, expected=True) as ended:
            result = await self.submit(request, submission, lane=lane, field=field)
            self._completions.accepted(submission.id)
            payload = b"" if result.replayed else await wait_for(ended, seconds, request)
        job = result.job
        if apply_notice(job, payload):
            return result
        try:
            if result.replayed:  # its id is another one than the subscription's
                job = await self._completions.wait_until_ended(job, seconds, request)
            else:
                job = await self._reader.get(job.id, job.owner)
        except StoreUnavailable:
            return replace(result, current=False)
        return replace(result, job=job)

    async def retry(self, job: Job, caller: ApiKey, key: str) -> SubmitResult:
        """Submit the failed images of an ended job whose bytes the store retained, as a new job.

        Raises:
            JobNotEnded, NothingToRetry; and as `prepare` and `submit`.
        """
        if not job.state.ended:
            raise JobNotEnded
        submission = await self.prepare(caller, job.model, top_k=job.top_k, webhook_url=job.webhook_url or "", key=key)
        submission.retry_of = job.id
        return await self._stream.submit(UploadSource(self._retained_images(job)), submission, job.lane)

    async def _submit_image(self, body: Body, image: UploadedImage, submission: Submission) -> SubmitResult:
        submission.reserved_bytes = body.buffered_bytes  # until the store has replied: they are in memory as long
        return await self._single_chunk.submit(submission, build_chunk([image]))

    async def _read_single(self, body: Body, source: UploadSource) -> UploadedImage:
        body.set_deadline(self._settings.upload_seconds_max)
        async with aclosing(source.images) as images:
            # Read to the end: the body may turn out to be invalid after the image.
            (image,) = [image async for image in images]
        return image

    async def _retained_images(self, job: Job) -> AsyncGenerator[UploadedImage]:
        found = False
        async for name, data in self._reader.retained_images(job):
            found = True
            yield UploadedImage(name, data)
        if not found:
            raise NothingToRetry
