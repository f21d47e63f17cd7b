"""Bounds the uploads of many images that a process reads at a time, and how long each may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from api.errors import UploadTimeout
from api.uploads.source import UploadSource
from jobs.errors import QueueFull
from jobs.owner_shares import OwnerShares


class UploadStreams:
    """One for each process."""

    def __init__(self, *, streams_max: int, seconds_max: float) -> None:
        self._shares = OwnerShares(streams_max)
        self._seconds_max = seconds_max

    @asynccontextmanager
    async def open(self, source: UploadSource, owner: str) -> AsyncIterator[None]:
        """Read `source` within this context.

        Raises:
            QueueFull: too many streams are open, or too many of them are this owner's.
            UploadTimeout: the context took too long.
        """
        if not self._shares.has_room(owner):
            raise QueueFull("Too many uploads of many images are in progress: repeat it when one of yours has ended.")
        self._shares.add(owner)
        try:
            async with asyncio.timeout(self._seconds_max), aclosing(source.images):
                yield
        except TimeoutError:
            raise UploadTimeout(f"An upload may take at most {self._seconds_max:g} seconds.") from None
        finally:
            self._shares.remove(owner)
