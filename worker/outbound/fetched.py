"""What was fetched of late: a process fetches a job's URL once, if it comes twice or its chunk is tried again."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from jobs.item_codes import ItemCode

Fetched = bytes | ItemCode
FETCHED_BYTES_MAX = 128 << 20  # of images that one process keeps for the same job; more than those of one chunk
FETCHED_URLS_MAX = 10_000
_URL_BYTES = 200  # that an entry without an image counts


class RecentlyFetched:
    def __init__(self, bytes_max: int = FETCHED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept = OrderedDict[tuple[bytes, str], Fetched]()
        self._in_progress = dict[tuple[bytes, str], asyncio.Future[Fetched]]()

    async def get(self, job_id: bytes, url: str, fetch: Callable[[str], Awaitable[Fetched]]) -> Fetched:
        """The image of the job's URL, or its error code, from `fetch` unless that was or is being called for it.

        Raises what `fetch` raises, for all who wait for it.
        """
        key = job_id, url
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        running = self._in_progress.get(key)
        if running is None:
            running = self._in_progress[key] = asyncio.ensure_future(fetch(url))
            running.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(running)

    def _done(self, key: tuple[bytes, str], done: "asyncio.Future[Fetched]") -> None:
        del self._in_progress[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._bytes += _size(done.result())
        while self._bytes > self._bytes_max or len(self._kept) > FETCHED_URLS_MAX:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(fetched: Fetched) -> int:
    return _URL_BYTES + (0 if isinstance(fetched, ItemCode) else len(fetched))
