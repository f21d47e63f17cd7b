"""Bounds streamed responses: how many; of those that follow a job, for how long, and how often each reads the job."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from api.auth.keys import ApiKey
from api.connection_state import has_left
from api.errors import TooManyStreams
from api.results.completion import JobCompletions
from jobs.owner_shares import OwnerShares

PROGRESS_POLL_SECONDS = 0.25  # between two reads of a followed job
STREAMED_ITEMS_MIN = 1001  # results of fewer are as small as a page of them, which is not counted either


class ResponseStreams:
    """One for each process. What a client does not read, it keeps in memory: up to 1.6 MiB a stream."""

    def __init__(self, completions: JobCompletions, *, streams_max: int, seconds_max: float) -> None:
        self._completions = completions
        self._shares = OwnerShares(streams_max)
        self._seconds_max = seconds_max

    @contextmanager
    def counted(self, owner: str) -> Iterator[None]:
        """Stream a response within this context.

        Raises:
            TooManyStreams: too many are open, or too many of them are the owner's.
        """
        if not self._shares.has_room(owner):
            raise TooManyStreams
        self._shares.add(owner)
        try:
            yield
        finally:
            self._shares.remove(owner)

    @contextmanager
    def follow(self, job_id: bytes, caller: ApiKey, request: Request) -> Iterator["FollowedStream"]:
        """Follow a job until it ends, the caller's key does, or the client leaves.

        Raises:
            TooManyStreams: as `counted`.
        """
        with self.counted(caller.owner), self._completions.subscribe(job_id) as ended:
            yield FollowedStream(self._completions, ended, caller, request, self._seconds_max)


class FollowedStream:
    def __init__(
        self,
        completions: JobCompletions,
        ended: asyncio.Future[bytes],
        caller: ApiKey,
        request: Request,
        seconds_max: float,
    ) -> None:
        self._completions = completions
        self._ended = ended
        self._caller = caller
        self._request = request
        self._deadline = asyncio.get_running_loop().time() + seconds_max

    async def wait_for_change(self) -> bool:
        """Wait until the job ends or `PROGRESS_POLL_SECONDS` pass. Returns whether to read the job again."""
        if self._completions.released or asyncio.get_running_loop().time() >= self._deadline:
            return False
        await asyncio.wait([self._ended], timeout=PROGRESS_POLL_SECONDS if not self._ended.done() else 0)
        if self._ended.done() and not self._completions.released:
            # The job has ended, but a read may not show it yet: do not busy-loop until it does.
            await asyncio.sleep(PROGRESS_POLL_SECONDS / 10)
        return not (self._completions.released or self._caller.has_ended or has_left(self._request))
