"""Submits of any number of images, on asyncio.

`darkroom/_sync/` is made from this folder by `client/make_sync.py`: change it here, and run that.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from darkroom._async.job import AsyncJob, job_path
from darkroom._http import Retries
from darkroom._io_async import aclosing, in_thread, sleep
from darkroom.errors import (
    DarkroomError,
    IdempotencyKeyReused,
    JobExpired,
    JobNotFound,
    QueueFull,
    QuotaExceeded,
)
from darkroom.images import Image
from darkroom.journal import Journal
from darkroom.parts import SUBMIT_BYTES_MAX, SUBMIT_IMAGES_MAX, Part, Parts
from darkroom.records import Item, Progress

if TYPE_CHECKING:
    from darkroom._async.client import AsyncDarkroom

_CANCEL_SECONDS_MAX = 5.0  # of tries to cancel a job that nobody will read

_FULL = (QueueFull, QuotaExceeded)

OnProgress = Callable[[Progress], None]


class _Changed(Exception):
    """The images are not those that the journal has."""


class LocalItems:
    """What only this side knows of the items to come: names as the caller has them, and what could not be read."""

    def __init__(self) -> None:
        self._names = dict[int, str]()
        self._unreadable = dict[int, str]()

    def clear(self) -> None:
        self._names.clear()
        self._unreadable.clear()

    def note(self, part: Part, first: int) -> None:
        """`first` is the index of the part's first image."""
        self._names |= {first + place: name for place, name in part.names.items()}
        self._unreadable |= {first + place: why for place, why in part.unreadable.items()}

    def item(self, item: Item) -> Item:
        name, why = self._names.pop(item.index, item.name), self._unreadable.pop(item.index, None)
        if why is not None:
            error = {"code": "unreadable", "detail": why}
            return Item.of({"index": item.index, "name": name, "status": "failed", "error": error})
        return item if name == item.name else replace(item, name=name, raw=item.raw | {"name": name})


async def fill(
    client: "AsyncDarkroom",
    images: Iterable[Image],
    query: dict[str, str],
    book: Journal,
    local: LocalItems,
    on_progress: OnProgress | None,
) -> AsyncGenerator[AsyncJob]:
    """Hand in the images, and yield the job after each part. Goes on with the journal's job, if it has one.

    If the images have changed since, that job is canceled, and another one made.
    """
    if book.is_kept and iter(images) is images:
        raise TypeError("a journal needs images that can be iterated twice, such as a list or a folder")
    for may_start_anew in (True, False):
        upload = _Upload(client, Parts(images), query, book, local, on_progress)
        try:
            async with aclosing(upload.run()) as jobs:
                async for job in jobs:
                    yield job
            return
        except (IdempotencyKeyReused, _Changed):
            if not may_start_anew or not book.is_own_key:
                raise
            await cancel(client, book)
            book.start_anew()
            local.clear()


async def cancel(client: "AsyncDarkroom", book: Journal) -> None:
    if book.job_id is not None:
        with suppress(DarkroomError):
            path = job_path(book.job_id) + "/cancel"
            await client.call("POST", path, retry_seconds=_CANCEL_SECONDS_MAX)


class _Upload:
    def __init__(
        self,
        client: "AsyncDarkroom",
        parts: Parts,
        query: dict[str, str],
        book: Journal,
        local: LocalItems,
        on_progress: OnProgress | None,
    ) -> None:
        self._client = client
        self._parts = parts
        self._query = query
        self._book = book
        self._local = local
        self._on_progress = on_progress
        self._images = self._sent_bytes = 0
        self._total = 0
        """Items of the job with the parts so far."""

    async def run(self) -> AsyncGenerator[AsyncJob]:
        job = await self._resume()
        part: Part | None = None
        if job is None:
            if await in_thread(self._parts.at_end):
                return
            self._book.begin()
            part = await in_thread(self._parts.take, SUBMIT_IMAGES_MAX, SUBMIT_BYTES_MAX)
            self._local.note(part, 0)
            if await in_thread(self._parts.at_end) and len(part.body) <= 2 * SUBMIT_BYTES_MAX:
                data = await self._client.call("POST", "/v1/jobs", params=self._query, part=part, key=self._book.key)
                job = self._client.to_job(data)
                self._book.add_job(job.id)
                self._done(part, job)
                yield self._sealed(job)
                return
            data = await self._client.call(
                "POST", "/v1/jobs", params=self._query | {"open": "true"}, key=self._book.key
            )
            job = self._client.to_job(data)
            self._book.add_job(job.id)
        self._report(sealed=False)  # the job is known from here on, before its first results are
        while part is not None or not await in_thread(self._parts.at_end):
            # The first part is of one size, also after a crash: its key is the same, and so must its images be.
            limits = () if self._book.parts else (SUBMIT_IMAGES_MAX, SUBMIT_BYTES_MAX)
            next_part = await in_thread(self._parts.take, *limits) if part is None else part
            self._local.note(next_part, self._total)
            async with aclosing(self._add(job, next_part)) as jobs:
                async for job in jobs:
                    yield job
            self._done(next_part, job)
            part = None
        if job.status == "open":
            job = self._client.to_job(await self._client.call("POST", job_path(job.id) + "/seal"))
        yield self._sealed(job)

    async def _resume(self) -> AsyncJob | None:
        """The journal's job, with the images passed over that it has. Raises _Changed if it is not to be continued."""
        if self._book.job_id is None:
            return None
        try:
            job = await self._client.job(self._book.job_id)
        except (JobNotFound, JobExpired):
            raise _Changed from None
        for entry in self._book.parts:
            part = await in_thread(self._parts.skip, entry["images"])
            if part.stamp != entry["stamp"]:
                raise _Changed
            part.unreadable = {int(place): why for place, why in entry["unreadable"].items()}
            self._local.note(part, self._total)
            self._total, self._images = entry["total"], self._images + part.images
        if job.status == "canceled" or (job.status != "open" and not await in_thread(self._parts.at_end)):
            raise _Changed
        return job

    async def _add(self, job: AsyncJob, part: Part) -> AsyncGenerator[AsyncJob]:
        """Send a part until the job has it. While the queue is full of the job's own images, that has no end."""
        retries = Retries(self._client.retry_seconds)
        path, key = job_path(job.id) + "/items", f"{self._book.key}-{len(self._book.parts)}"
        while True:
            try:
                data = await self._client.call("POST", path, part=part, key=key, passes_on=_FULL)
                yield self._client.to_job(data)
                return
            except _FULL as error:
                now = await job.refresh()
                if (now.counts.total, now.counts.pending) != (job.counts.total, job.counts.pending):
                    retries.reset()
                job = now
                yield job
                await sleep(retries.pause_seconds(error))

    def _done(self, part: Part, job: AsyncJob) -> None:
        self._total = job.counts.total if part.expands else self._total + part.images
        self._book.add_part(part, self._total)
        self._images += part.images
        self._sent_bytes += len(part.body)
        self._report(sealed=False)

    def _sealed(self, job: AsyncJob) -> AsyncJob:
        if job.counts.total != self._total:
            raise DarkroomError(f"job {job.id} has {job.counts.total} images in the place of {self._total}")
        self._report(sealed=True)
        return job

    def _report(self, *, sealed: bool) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(self._book.job_id or "", self._images, self._sent_bytes, sealed))
