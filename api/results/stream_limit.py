"""Answers that go on while a job runs: how many, for how long, and what ends them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import TooManyStreams
from api.results.completion import JobCompletions

PROGRESS_POLL_SECONDS = 0.25  # between two reads of a job that is followed


class FollowedStreams:
    """One for each process."""

    def __init__(self, completions: JobCompletions, *, streams_max: int, seconds_max: float) -> None:
        self._completions = completions
        self._streams_max = streams_max
        self._seconds_max = seconds_max
        self._streams = 0

    @contextmanager
    def holding(self, job_id: bytes) -> Iterator["HeldStream"]:
        """Raises TooManyStreams where there are too many."""
        if self._streams >= self._streams_max:
            raise TooManyStreams
        self._streams += 1
        try:
            with self._completions.subscribe(job_id) as ended:
                yield HeldStream(self._completions, ended, self._seconds_max)
        finally:
            self._streams -= 1


class HeldStream:
    def __init__(self, completions: JobCompletions, ended: asyncio.Future[bytes], seconds_max: float) -> None:
        self._completions = completions
        self._ended = ended
        self._until = asyncio.get_running_loop().time() + seconds_max

    async def pause(self) -> bool:
        """Wait for the job's end, but not longer than a look takes to be worth it. Returns whether to look again."""
        if self._completions.released or asyncio.get_running_loop().time() >= self._until:
            return False
        await asyncio.wait([self._ended], timeout=PROGRESS_POLL_SECONDS if not self._ended.done() else 0)
        if self._ended.done() and not self._completions.released:
            await asyncio.sleep(PROGRESS_POLL_SECONDS / 10)  # an end that is not to be read yet is no reason to spin
        return not self._completions.released
