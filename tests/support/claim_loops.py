"""Constants and helpers for tests of the claim loop."""

from collections.abc import Callable

from tests.support.store import Store
from worker.classify.claim_loop import ClaimLoop

MakeClaimLoop = Callable[..., ClaimLoop]
BeforeDecode = Callable[[Callable[[bytes], None]], None]

BULK_FIRST = 6  # the turn that looks at the bulk lane first
SMALLEST = 1e-9  # seconds: a slice of one image


async def outcomes_of(store: Store, job_id: bytes) -> list[object]:
    return [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]
