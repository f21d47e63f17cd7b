"""From a request's body to an accepted job, or to more of an open one."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b

from starlette.requests import Request

from api.errors import JobNotEnded, NothingToRetry, UnknownModel, UploadTimeout
from api.settings import ApiSettings
from api.submissions.chunk_sender import ChunkStream, new_digest, update_digest
from api.uploads.body import Body
from api.uploads.chunks import chunk_of, read_chunks
from api.uploads.content_type import is_image, open_source, read_image
from api.uploads.source import UploadedImage, UploadSource
from jobs.errors import DarkroomError, IdempotencyKeyReused, InvalidRequest, QueueFull, UploadTooLarge
from jobs.ids import to_text
from jobs.item_codes import ItemCode
from jobs.records import Job, Lane
from jobs.store.job_reader import JobReader
from jobs.store.model_registry import ModelRegistry
from jobs.store.open_job_parts import OpenJobParts, Part, Progress
from jobs.store.submit import Chunk, ExistingJob, Submission, Submitter, accepted_job
from jobs.store.upload_budget import UploadBudget

_RIDES_ALONG_BYTES = 256 << 10  # larger chunks are written on their own, so that no small submit waits behind them
_NEW = Progress(0, b"", done=False)
_NO_IMAGES = "The upload has no images."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of an upload, beside its body."""

    owner: str
    model: str | None = None
    lane: Lane | None = None
    """None: interactive for what fits into one chunk, bulk for more."""
    top_k: int = 5
    webhook_url: str = ""
    key: str = ""
    """The Idempotency-Key."""
    field: str | None = None
    """The multipart field of the only image."""


@dataclass(frozen=True, slots=True)
class Accepted:
    job: Job
    replayed: bool = False
    """Whether an earlier request with the same Idempotency-Key has done it."""


class Intake:
    def __init__(
        self,
        settings: ApiSettings,
        store: JobReader,
        submitter: Submitter,
        open_jobs: OpenJobParts,
        upload_budget: UploadBudget,
        models: ModelRegistry,
    ) -> None:
        self._settings = settings
        self._store = store
        self._submitter = submitter
        self._open_jobs = open_jobs
        self._upload_budget = upload_budget
        self._models = models
        self._streams = 0

    async def new_id(self, owner: str) -> bytes:
        """An id for a job to come."""
        return await self._submitter.new_id(owner)

    async def submit(self, request: Request, order: Order, job_id: bytes) -> Accepted:
        """Read the body as a job of this id, unless its Idempotency-Key has made one before.

        Raises:
            UnknownModel, UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest, QueueFull, QuotaExceeded,
            IdempotencyInProgress, IdempotencyKeyReused, StoreUnavailable: nothing is left behind; only of a stream
                that had brought more than a chunk, a canceled job whose id is among the extensions.
        """
        submission = await self._submission(order, job_id)
        body = Body(request, self._upload_budget, self._settings)
        try:
            if order.field is None and is_image(body):
                body.limit(self._settings.upload_seconds_max)
                return await self._submit_image(body, await read_image(body, self._settings), submission)
            source = await open_source(body, self._settings, field=order.field)
            if source.alone:
                return await self._submit_image(body, await self._only_image(body, source), submission)
            async with self._streaming(source):
                return await self._submit_stream(source, submission, order.lane)
        finally:
            body.close()

    async def open(self, order: Order, job_id: bytes) -> Accepted:
        """A job that takes parts until it is sealed."""
        submission = await self._submission(order, job_id)
        submission.lane = order.lane or Lane.BULK
        submission.fingerprint = _terms(submission).digest() if submission.key else b""
        submission.seals_itself = self._settings.open_job_at_deadline == "seal"
        outcome = await self._submitter.enqueue(submission, open_seconds=self._settings.open_job_seconds_max)
        return await self._accepted(submission, outcome)

    async def add(self, request: Request, job: Job, order: Order) -> Accepted:
        """Read the body as a part of an open job. With an Idempotency-Key, a part that broke off goes on where it was.

        Raises:
            JobSealed, JobEnded, JobNotFound: it takes no parts.
            And as `submit`; what has come of a broken part stays.
        """
        name = blake2b(order.key.encode(), digest_size=8).digest() if order.key else os.urandom(8)
        part = Part(job.id, order.owner, job.lane, self._settings.open_job_seconds_max, name)
        body = Body(request, self._upload_budget, self._settings)
        try:
            source = await open_source(body, self._settings)
            async with self._streaming(source):
                before = await self._open_jobs.begin(part)
                stream = self._chunk_stream(part, new_digest(), before)
                try:
                    last = await read_chunks(source, stream.add)
                    if last is None:
                        raise InvalidRequest(_NO_IMAGES)
                    body.close()  # from here on the stream counts these bytes
                    await stream.add(last)
                    await stream.end(skipped=source.tally.skipped)
                except BaseException:
                    await self._leave(part, stream)
                    raise
        finally:
            body.close()
        return Accepted(await self._store.get(job.id, order.owner), replayed=before.done)

    async def retry(self, job: Job, key: str) -> Accepted:
        """A new job from the failed images of an ended one whose bytes are kept.

        Raises:
            JobNotEnded, NothingToRetry; and as `submit`.
        """
        if not job.state.ended:
            raise JobNotEnded
        order = Order(job.owner, job.model, job.lane, job.top_k, job.webhook_url or "", key)
        submission = await self._submission(order, await self.new_id(job.owner))
        submission.retry_of = job.id
        source = UploadSource(self._kept(job))
        async with self._streaming(source):
            return await self._submit_stream(source, submission, job.lane)

    async def _kept(self, job: Job) -> AsyncGenerator[UploadedImage]:
        found = False
        async for name, data in self._store.retained_images(job):
            found = True
            yield UploadedImage(name, data)
        if not found:
            raise NothingToRetry

    async def _submission(self, order: Order, job_id: bytes) -> Submission:
        name = order.model or self._settings.default_model
        if not await self._models.knows(name):
            raise UnknownModel(f"There is no model {name!r}; GET /v1/models lists them.")
        key = key_digest(order.key) if order.key else b""
        lane = order.lane or Lane.INTERACTIVE
        return Submission(job_id, order.owner, name, lane, order.top_k, key=key, webhook_url=order.webhook_url)

    async def _only_image(self, body: Body, source: UploadSource) -> UploadedImage:
        body.limit(self._settings.upload_seconds_max)
        async with aclosing(source.images) as images:
            # To the end: what comes after the image may make the body a bad one.
            (image,) = [image async for image in images]
        return image

    async def _submit_image(self, body: Body, image: UploadedImage, submission: Submission) -> Accepted:
        body.close()
        return await self._submit_chunk(submission, chunk_of([image]))

    async def _submit_chunk(self, submission: Submission, chunk: Chunk) -> Accepted:
        """A job of one chunk is accepted or refused as a whole."""
        if chunk.only_refused is ItemCode.ITEM_TOO_LARGE:
            raise UploadTooLarge(f"An image may have {self._settings.item_bytes_max} bytes.")
        submission.chunk = chunk
        if submission.key:
            digest = _terms(submission)
            update_digest(digest, chunk)
            submission.fingerprint = digest.digest()
        if chunk.upload_bytes > _RIDES_ALONG_BYTES:
            try:
                await self._submitter.write_upload(submission.id, chunk)
            except BaseException:
                await self._submitter.discard_upload(submission.id)
                raise
        return await self._accepted(submission, await self._submitter.enqueue(submission))

    async def _submit_stream(self, source: UploadSource, submission: Submission, lane: Lane | None) -> Accepted:
        """An open job underneath: from the first byte where a key is to be claimed, else from the second chunk on."""
        stream: ChunkStream | None = None
        submission.lane = lane or Lane.BULK

        async def add(chunk: Chunk) -> None:
            nonlocal stream
            if stream is None:
                await self._submitter.enqueue(submission, open_seconds=self._settings.hold_seconds)
                stream = self._stream_of(submission)
            await stream.add(chunk)

        try:
            if submission.key:
                outcome = await self._submitter.enqueue(submission, open_seconds=self._settings.hold_seconds)
                if isinstance(outcome, ExistingJob):
                    return await self._repeat(source, submission, outcome)
                stream = self._stream_of(submission)
            last = await read_chunks(source, add)
            if last is None:
                raise InvalidRequest(_NO_IMAGES)
            if stream is None and not source.tally.skipped and not source.by_reference:
                submission.lane = lane or Lane.INTERACTIVE
                return await self._submit_chunk(submission, last)
            await add(last)
            assert stream is not None
            await self._open_jobs.seal(
                submission.id, submission.owner, fingerprint=await stream.settle(), skipped=source.tally.skipped
            )
        except BaseException as error:
            if stream is not None:
                await self._abandon(submission, stream, error)
            raise
        return Accepted(await self._store.get(submission.id, submission.owner))

    async def _repeat(self, source: UploadSource, submission: Submission, earlier: ExistingJob) -> Accepted:
        """The answer to the first request, where this one brings the same."""
        digest = _terms(submission)

        async def compare(chunk: Chunk) -> None:
            update_digest(digest, chunk)

        if (last := await read_chunks(source, compare)) is not None:
            update_digest(digest, last)
        if digest.digest() != earlier.fingerprint:
            raise IdempotencyKeyReused
        return await self._accepted(submission, earlier)

    async def _abandon(self, submission: Submission, stream: ChunkStream, error: BaseException) -> None:
        """What a broken stream has brought is canceled; where that is nothing, no job was there."""
        await stream.stop()
        try:
            if stream.added == 0:
                await self._store.delete(submission.id, submission.owner)
                return
            await self._store.cancel(submission.id, submission.owner)
        except DarkroomError:
            log.warning("a broken stream stays until its deadline")
        if isinstance(error, DarkroomError):
            error.extensions["job_id"] = to_text(submission.id)

    async def _leave(self, part: Part, stream: ChunkStream) -> None:
        await stream.stop()
        with suppress(DarkroomError):
            await self._open_jobs.leave(part)

    def _stream_of(self, submission: Submission) -> ChunkStream:
        part = Part(submission.id, submission.owner, submission.lane, self._settings.hold_seconds)
        return self._chunk_stream(part, _terms(submission), _NEW)

    def _chunk_stream(self, part: Part, digest: blake2b, before: Progress) -> ChunkStream:
        return ChunkStream(
            self._open_jobs, self._upload_budget, self._settings.room_wait_seconds_max, part, digest, before
        )

    @asynccontextmanager
    async def _streaming(self, source: UploadSource) -> AsyncIterator[None]:
        if self._streams >= self._settings.upload_streams_max:
            raise QueueFull("Too many uploads are coming in at once.")
        self._streams += 1
        try:
            async with asyncio.timeout(self._settings.stream_seconds_max), aclosing(source.images):
                yield
        except TimeoutError:
            raise UploadTimeout(f"An upload may take {self._settings.stream_seconds_max:g} seconds.") from None
        finally:
            self._streams -= 1

    async def _accepted(self, submission: Submission, outcome: int | ExistingJob) -> Accepted:
        if isinstance(outcome, ExistingJob):
            return Accepted(await self._store.get(outcome.job_id, submission.owner), replayed=True)
        return Accepted(accepted_job(submission, outcome))


def key_digest(key: str) -> bytes:
    """An Idempotency-Key as the store knows it."""
    return blake2b(key.encode(), digest_size=16).digest()


def _terms(submission: Submission) -> blake2b:
    """The beginning of a fingerprint: what is asked beside the content."""
    return new_digest(submission.model, submission.top_k, submission.webhook_url, submission.retry_of)
