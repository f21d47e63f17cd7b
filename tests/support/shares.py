"""What owners have of the budgets, and how a test uses their shares up."""

from collections.abc import Awaitable, Callable

from jobs.errors import QueueFull
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.store import Store

JOBS_MAX = 10_000  # far more than a small store takes
OLD_MS, EXPIRED_MS = 700_000, 86_500_000  # past the least time to live of a result, and past the greatest


def share(store: Store, owner: str) -> tuple[int, int, int]:
    """The owner's bytes of uploads, of the spool, and of records."""
    uploads, spooled = (store.stat(f"{name}:{owner}") for name in ("uploads", "spooled"))
    return uploads, spooled, int(store.redis.zscore(keys.OWNERS, owner) or 0)


async def until_refused(submit: Callable[[], Awaitable[object]], *, share: bool = True) -> int:
    """How often it was accepted, before the owner's share or else the budget was used up."""
    accepted, refused = 0, ""
    while not refused:
        assert accepted < JOBS_MAX
        try:
            await submit()
            accepted += 1
        except QueueFull as error:
            refused = error.detail
    assert ("share" in refused) == share
    return accepted


def finish_all(store: Store) -> None:
    number = 0
    while (lease := store.claim(number)).chunks:
        store.finish(lease)
        number += 1


def age(store: Store, *owners: str, by_ms: int = OLD_MS) -> None:
    """Make all ended jobs of these owners older."""
    for owner in owners:
        for job_id in store.redis.lrange(keys.ENDED_OF_OWNER + owner, 0, -1):
            store.redis.hincrby(job_key(job_id), keys.FIELDS["ended_ms"], -by_ms)
        store.note_oldest(owner)
