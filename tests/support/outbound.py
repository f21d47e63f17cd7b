"""Jobs by reference, as tests of the outbound worker submit them."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from jobs.codec import pack_upload, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Lane
from jobs.store.for_api.submission import Chunk
from tests.support.store import Store
from worker.outbound.process import OutboundProcess

MakeOutboundProcess = Callable[..., OutboundProcess]
RunSlice = Callable[..., Awaitable[None]]
PATIENT = {  # longer than a slow machine takes: only the test ends a wait
    "outbound_slice_seconds": 60,
    "fetch_seconds_max": 100,
    "webhook_seconds_max": 100,
    "watchdog_seconds": 300,
    "task_time_limit_seconds": 300,
}
SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()


async def submit_urls(
    store: Store, *urls: str, chunk_items: int = 8, lane: Lane = Lane.INTERACTIVE, **options: Any
) -> bytes:
    """A job by reference."""
    part = await store.open(lane=lane, **options)
    for at in range(0, len(urls), chunk_items):
        some = urls[at : at + chunk_items]
        data = pack_upload([url.encode() for url in some])
        await store.open_jobs.add(part, Chunk([*some], len(data), data, by_reference=True), bytes(16))
    await store.open_jobs.seal(part.job_id, part.owner)
    return part.job_id


def claim_images(store: Store, **options: Any) -> list[bytes | ItemCode]:
    """Claim the one chunk that is ready for the job's model; its images."""
    (claimed,) = store.claim(**options).chunks
    assert claimed.upload is not None
    return [i if isinstance(i, ItemCode) else bytes(i) for i in unpack_upload(claimed.upload, claimed.chunk_ref.items)]
