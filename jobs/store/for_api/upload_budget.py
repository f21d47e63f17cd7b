"""The budget for upload bytes."""

import asyncio

from jobs.errors import QueueFull
from jobs.owner_shares import OwnerShares
from jobs.records import Lane

_POLL_SECONDS = 0.05


class UploadBudget:
    """Keeps the upload bytes of all API processes and of the store below the budget.

    The store counts the bytes of accepted jobs only. `open_bytes` counts the uploads that this process is receiving, in
    memory or written ahead. Each other API process is assumed to receive as much, so that all of them together never
    exceed the budget, however the load is spread. Of what a process is receiving, each owner has a share.
    """

    def __init__(self, budget_bytes: int, processes: int, *, bulk_fraction: float, spool_bytes: int = 0) -> None:
        """`spool_bytes` is the budget of files outside Redis."""
        self._open = OwnerShares(budget_bytes // processes)
        self._budget_bytes = budget_bytes
        self._processes = processes
        self._bulk_bytes = int(budget_bytes * bulk_fraction)
        self._spool_bytes = {Lane.INTERACTIVE: spool_bytes, Lane.BULK: int(spool_bytes * bulk_fraction)}

    @property
    def open_bytes(self) -> int:
        return self._open.total

    def for_jobs_bytes(self, lane: Lane, *, taken: int = 0) -> int:
        """The upload bytes that accepted jobs may have in total, including a new one of this lane.

        Bulk jobs leave a part of the budget to interactive ones. `taken` is the new job's own share of `open_bytes`.
        """
        budget = self._bulk_bytes if lane is Lane.BULK else self._budget_bytes
        return budget - (self.open_bytes - taken) * self._processes

    def for_spool_bytes(self, lane: Lane) -> int:
        """The bytes that files of accepted jobs may have in total, including a new one of this lane."""
        return self._spool_bytes[lane]

    def reserve(self, size: int, owner: str) -> None:
        """Count these bytes, also if it raises.

        Raises:
            QueueFull: the budget is exceeded even without the bytes of accepted jobs, or the owner's share is.
        """
        has_room = self._open.has_room(owner, size)
        self._open.add(owner, size)
        if self._open.total * self._processes > self._budget_bytes:
            self.check(0)
        if not has_room:
            raise QueueFull("Your uploads take up the share of the upload budget that one owner may have.")

    async def reserve_when_free(self, size: int, owner: str, seconds: float) -> None:
        """`reserve`, after waiting for other uploads. Raises QueueFull after so many seconds, with nothing reserved."""
        until = asyncio.get_running_loop().time() + seconds
        while not self._open.has_room(owner, size):
            if asyncio.get_running_loop().time() >= until:
                raise QueueFull("The upload budget is used up at the moment.")
            await asyncio.sleep(_POLL_SECONDS)
        self._open.add(owner, size)

    def release(self, size: int, owner: str) -> None:
        self._open.remove(owner, size)

    def check(self, waiting_bytes: int, *, taken: int = 0) -> None:
        """Raises QueueFull if the budget is exceeded with so many bytes of accepted jobs, which have `taken` of the
        open ones, too.
        """
        over = waiting_bytes - self.for_jobs_bytes(Lane.INTERACTIVE, taken=taken)
        if over > 0:
            raise QueueFull("The upload budget is used up at the moment.", over_bytes=over)
