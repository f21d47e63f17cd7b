"""From a request's body to an accepted job."""

import asyncio
from contextlib import aclosing

from starlette.requests import Request

from api.settings import ApiSettings
from api.uploads import Body, ChunkBuilder, read_images
from jobs.errors import ItemCode, UnknownModel, UploadTimeout, UploadTooLarge
from jobs.records import Item, ItemState, Job, JobState, Lane
from jobs.registry import ModelRegistry
from jobs.submit import Chunk, Submission, Submitter

_RIDES_ALONG_BYTES = 256 << 10  # larger chunks are written on their own, so that no small submit waits behind them


class Intake:
    def __init__(self, settings: ApiSettings, submitter: Submitter, models: ModelRegistry) -> None:
        self._settings = settings
        self._submitter = submitter
        self._models = models

    async def receive(
        self, request: Request, *, owner: str, model: str | None, lane: Lane, top_k: int, field: str | None = None
    ) -> Submission:
        """Read the body into chunks; all but a small last one are in the store when this returns.

        Raises:
            UnknownModel, UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest, QueueFull: nothing is
                left behind.
        """
        name = model or self._settings.default_model
        if not await self._models.knows(name):
            raise UnknownModel(f"There is no model {name!r}; GET /v1/models lists them.")
        job_id = await self._submitter.new_id(owner)
        submission = Submission(job_id, owner, name, lane, top_k, [])
        body = Body(request, self._submitter.room)
        builder, refused = ChunkBuilder(), 0
        try:
            async with (
                asyncio.timeout(self._settings.upload_seconds_max),
                aclosing(read_images(body, self._settings, field=field)) as images,
            ):
                async for image in images:
                    refused += isinstance(image.data, ItemCode)
                    if (full := builder.add(image)) is not None:
                        await self._keep(submission, full)
            last = builder.build()
            assert last is not None
            if not submission.chunks and refused == 1 and len(last.names) == 1:
                raise UploadTooLarge(f"An image may have {self._settings.item_bytes_max} bytes.")
            if last.upload_bytes > _RIDES_ALONG_BYTES:
                await self._keep(submission, last)
            else:
                submission.chunks.append(last)
        except TimeoutError:
            await self._discard(submission)
            raise UploadTimeout(f"An upload may take {self._settings.upload_seconds_max:g} seconds.") from None
        except BaseException:
            await self._discard(submission)
            raise
        finally:
            body.close()
        return submission

    async def commit(self, submission: Submission) -> Job:
        """Have the job accepted. Raises as `Submitter.enqueue` does."""
        accepted_ms = await self._submitter.enqueue(submission)
        names = [name for chunk in submission.chunks for name in chunk.names]
        return Job(
            id=submission.id,
            owner=submission.owner,
            model=submission.model,
            lane=submission.lane,
            state=JobState.QUEUED,
            top_k=submission.top_k,
            accepted_ms=accepted_ms,
            ended_ms=None,
            total=len(names),
            succeeded=0,
            failed=0,
            chunks=len(submission.chunks),
            gave_up=None,
            only_item=Item(0, names[0], ItemState.PENDING, None, None) if len(names) == 1 else None,
        )

    async def _keep(self, submission: Submission, chunk: Chunk) -> None:
        submission.chunks.append(chunk)
        await self._submitter.write_upload(submission.id, len(submission.chunks) - 1, chunk)

    async def _discard(self, submission: Submission) -> None:
        if submission.chunks:
            await self._submitter.discard_uploads(submission.id, len(submission.chunks))
