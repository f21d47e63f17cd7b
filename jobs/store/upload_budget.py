"""How much room is left for upload bytes."""

import asyncio

from jobs.errors import QueueFull
from jobs.records import Lane

_LOOK_SECONDS = 0.05


class UploadBudget:
    """What is left of the budget for upload bytes, of which the store counts those of accepted jobs alone.

    `open_bytes` are those of uploads that are still coming in, here in memory or written ahead. Other API processes
    are taken to hold as much: then all together never hold more than the budget, however the load is spread.
    """

    def __init__(self, budget_bytes: int, processes: int, *, bulk_fraction: float) -> None:
        self.open_bytes = 0
        self._budget_bytes = budget_bytes
        self._processes = processes
        self._bulk_bytes = int(budget_bytes * bulk_fraction)

    def for_jobs_bytes(self, lane: Lane, *, taken: int = 0) -> int:
        """What accepted jobs may have in all when one of this lane comes: bulk work leaves room for single uploads.

        Of `open_bytes`, `taken` are that job's own.
        """
        budget = self._bulk_bytes if lane is Lane.BULK else self._budget_bytes
        return budget - (self.open_bytes - taken) * self._processes

    def take(self, size: int) -> None:
        """Raises QueueFull where there is no room even without the jobs that wait."""
        self.open_bytes += size
        self.check(0)

    async def reserve_when_free(self, size: int, seconds: float) -> None:
        """`take`, after a wait for that room. Raises QueueFull, with nothing taken, when the time is over."""
        until = asyncio.get_running_loop().time() + seconds
        while (self.open_bytes + size) * self._processes > self._budget_bytes:
            if asyncio.get_running_loop().time() >= until:
                raise QueueFull("There is no room for more uploads now.")
            await asyncio.sleep(_LOOK_SECONDS)
        self.open_bytes += size

    def release(self, size: int) -> None:
        self.open_bytes -= size

    def check(self, waiting_bytes: int) -> None:
        """Raises QueueFull where there is no room beside so many bytes of accepted jobs."""
        over = waiting_bytes - self.for_jobs_bytes(Lane.INTERACTIVE)
        if over > 0:
            raise QueueFull("There is no room for more uploads now.", over_bytes=over)
