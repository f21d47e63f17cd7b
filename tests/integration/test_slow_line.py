"""A line between a worker and Redis that brings an image in more time than a lease lasts."""

import asyncio
from pathlib import Path

from chaos.lines import Proxy
from jobs.store import keys
from tests.support.processes import Worker
from tests.support.stack import Stack, results_of, submit_all
from tests.support.waiting import eventually

LEASE_SECONDS = 3
SLOW_BYTES_PER_SECOND = 30_000  # the image would take 30 s


async def test_an_image_that_arrives_later_than_its_lease_would_end_is_classified_once(
    stack: Stack, tmp_path: Path, shirt: bytes
) -> None:
    """Its lease is renewed while its bytes are read: else it would lapse before the work begins, at every worker."""
    proxy, line = Proxy(stack.valkey.socket), tmp_path / "line"
    await proxy.start(line)
    api = await asyncio.to_thread(stack.api)
    worker = Worker(f"unix://{line}?db=0", tmp_path / "worker.log", children=1, LEASE_SECONDS=str(LEASE_SECONDS))
    try:
        await asyncio.to_thread(worker.start)
        proxy.bytes_per_second = SLOW_BYTES_PER_SECOND
        job_ids = await submit_all(api.url, [shirt + bytes(900_000)])

        def lease_end() -> float:
            found = stack.redis.zrange(keys.LEASES, 0, -1, withscores=True)
            return found[0][1] if found else 0

        first = await eventually(lease_end, what="the lease")
        await eventually(lambda: lease_end() > first + 1500 * LEASE_SECONDS, what="renewals")
        proxy.bytes_per_second = 1 << 30
        (result,) = await results_of(api.url, job_ids)
        assert result["class"] == "Shirt"
        assert "ready again" not in worker.output(), "no lease lapsed, and nothing was charged"
        assert stack.stat("transitions") == 1
    finally:
        await asyncio.to_thread(worker.stop)
        await proxy.stop()
