"""Fetches the images of one chunk of URLs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jobs.codec import unpack_upload
from jobs.item_codes import ItemCode
from jobs.metrics.process_metrics import FETCHES
from jobs.store.for_workers.leases import ClaimedChunk
from worker.outbound.fetch import Fetcher
from worker.outbound.fetched import RecentlyFetched
from worker.outbound.hosts import HostBusy
from worker.outbound.settings import OutboundSettings

log = logging.getLogger(__name__)

_SUSPECT_TIME_SHARE = 0.5  # of the task's time limit


class ChunkFetcher:
    def __init__(self, settings: OutboundSettings, fetcher: Fetcher, recently: RecentlyFetched) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._recently = recently

    async def images(self, claimed: ClaimedChunk) -> list[bytes | ItemCode]:
        """An image or an error code for each URL, fetched concurrently; one that comes twice in a job is fetched once.

        Raises:
            HostBusy: others had the connections that an image's host may have, or have fetched it in vain: try again
                later, when what was fetched will not be fetched again.
        """
        job_id, urls = claimed.chunk_ref.job_id, self._urls(claimed)

        async def image(url: str | ItemCode) -> bytes | ItemCode | HostBusy:
            try:
                return url if isinstance(url, ItemCode) else await self._recently.get(job_id, url, self._image)
            except HostBusy as busy:
                return busy

        images = list[bytes | ItemCode]()
        for found in await asyncio.gather(*map(image, urls)):  # all of them have ended before the first error is raised
            if isinstance(found, HostBusy):
                raise found
            images.append(found)
        return images

    async def images_one_by_one(
        self, claimed: ClaimedChunk, on_item_start: Callable[[int], Awaitable[object]]
    ) -> list[bytes | ItemCode]:
        """The same for a suspect chunk. `on_item_start` is called with each URL's number before that is fetched.

        Raises HostBusy.
        """
        job_id, urls = claimed.chunk_ref.job_id, self._urls(claimed)
        seconds = self._settings.task_time_limit_seconds * _SUSPECT_TIME_SHARE / len(urls)
        images = list[bytes | ItemCode]()
        for number, url in enumerate(urls):
            await on_item_start(number)
            try:
                async with asyncio.timeout(seconds):
                    known = url if isinstance(url, ItemCode) else self._recently.find(job_id, url)
                    images.append(await self._image(str(url)) if known is None else known)
            except TimeoutError:
                images.append(ItemCode.FETCH_TIMEOUT)
        return images

    async def _image(self, url: str) -> bytes | ItemCode:
        """Raises HostBusy."""
        image: bytes | ItemCode
        try:
            image = await self._fetcher.fetch(url)
        except HostBusy:
            raise
        except Exception:  # a bug that this URL triggers must not stop the other images of its chunk
            log.exception("fetching failed")
            image = ItemCode.FETCH_FAILED
        FETCHES.add(image if isinstance(image, ItemCode) else "ok")
        return image

    def _urls(self, claimed: ClaimedChunk) -> list[str | ItemCode]:
        """The URL of each item, or its error code if that is known without fetching."""
        if claimed.upload is None:
            return [ItemCode.UPLOAD_LOST] * claimed.chunk_ref.items
        return [
            item if isinstance(item, ItemCode) else self._failure_code(claimed, number) or bytes(item).decode()
            for number, item in enumerate(unpack_upload(claimed.upload, claimed.chunk_ref.items))
        ]

    def _failure_code(self, claimed: ClaimedChunk, number: int) -> ItemCode | None:
        failure = claimed.failure_counts.failure_of(
            number, crash_tries_max=self._settings.crash_tries_max, lost_leases_max=self._settings.losses_max
        )
        return None if failure is None else failure.code
