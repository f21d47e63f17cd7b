"""Bounds the uploads of many images that a process reads at a time, and how long each may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from api.errors import UploadTimeout
from api.uploads.source import UploadSource
from jobs.errors import QueueFull


class UploadStreams:
    """One for each process."""

    def __init__(self, *, streams_max: int, seconds_max: float) -> None:
        self._streams_max = streams_max
        self._seconds_max = seconds_max
        self._count = 0

    @asynccontextmanager
    async def open(self, source: UploadSource) -> AsyncIterator[None]:
        """Read `source` within this context.

        Raises:
            QueueFull: too many streams are open.
            UploadTimeout: the context took too long.
        """
        if self._count >= self._streams_max:
            raise QueueFull("Too many uploads of many images are in progress.")
        self._count += 1
        try:
            async with asyncio.timeout(self._seconds_max), aclosing(source.images):
                yield
        except TimeoutError:
            raise UploadTimeout(f"An upload may take at most {self._seconds_max:g} seconds.") from None
        finally:
            self._count -= 1
