"""What is done with one chunk of URLs under its lease."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jobs.codec import unpack_upload
from jobs.item_codes import ItemCode
from jobs.store.leases import ClaimedChunk
from worker.outbound.fetch import Fetcher
from worker.outbound.settings import OutboundSettings

log = logging.getLogger(__name__)

_SUSPECTS_SHARE = 0.5  # of the task's time limit


class ChunkFetcher:
    def __init__(self, settings: OutboundSettings, fetcher: Fetcher) -> None:
        self._settings = settings
        self._fetcher = fetcher

    async def images(self, claimed: ClaimedChunk) -> list[bytes | ItemCode]:
        """An image, or why there is none, for each URL; all are fetched at once."""
        return list(await asyncio.gather(*(self._image(url) for url in self._urls(claimed))))

    async def images_one_by_one(
        self, claimed: ClaimedChunk, note: Callable[[int], Awaitable[object]]
    ) -> list[bytes | ItemCode]:
        """The same for a chunk that was held when a process died: `note` is told of each URL before it is touched."""
        urls = self._urls(claimed)
        seconds = self._settings.task_time_limit_seconds * _SUSPECTS_SHARE / len(urls)
        images = list[bytes | ItemCode]()
        for number, url in enumerate(urls):
            await note(number)
            try:
                async with asyncio.timeout(seconds):
                    images.append(await self._image(url))
            except TimeoutError:
                images.append(ItemCode.FETCH_TIMEOUT)
        return images

    async def _image(self, url: str | ItemCode) -> bytes | ItemCode:
        if isinstance(url, ItemCode):
            return url
        try:
            return await self._fetcher.fetch(url)
        except Exception:  # a fault of ours on this very URL must not keep its neighbours from being classified
            log.exception("fetching failed")
            return ItemCode.FETCH_FAILED

    def _urls(self, claimed: ClaimedChunk) -> list[str | ItemCode]:
        """What is still to be fetched; a code where that is settled."""
        if claimed.upload is None:
            return [ItemCode.UPLOAD_LOST] * claimed.chunk_ref.items
        return [
            item if isinstance(item, ItemCode) else self._verdict(claimed, number) or bytes(item).decode()
            for number, item in enumerate(unpack_upload(claimed.upload, claimed.chunk_ref.items))
        ]

    def _verdict(self, claimed: ClaimedChunk, number: int) -> ItemCode | None:
        failure = claimed.failure_counts.failure_of(
            number, crash_tries_max=self._settings.crash_tries_max, lost_leases_max=self._settings.losses_max
        )
        return None if failure is None else failure.code
