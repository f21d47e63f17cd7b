"""Cost and memory of large jobs: an archive, a million images, two gigabytes."""

import asyncio
import os
import statistics
import tarfile
import time
from collections.abc import AsyncIterator
from typing import Any

from bench.bulk.archives import pieces, tar_of, zip_of
from bench.bulk.client import TAR, BulkClient, CpuCost, connected
from bench.services import GIB

_PARTS, _PART_IMAGES = 20, 50_000


async def archive(pngs: list[bytes]) -> dict[str, Any]:
    """One archive of 10,000 PNGs, from the first byte sent to the last result read."""
    rows: dict[str, list[dict[str, Any]]] = {"tar": [], "zip": []}
    bodies = {"tar": (tar_of(pngs), "application/x-tar"), "zip": (zip_of(pngs), "application/zip")}
    async with connected() as client:
        await client.wait(await client.submit(bodies["tar"][0]))  # warm-up
        for _ in range(5):
            for kind, (body, content_type) in bodies.items():
                cost = CpuCost(client.servers)
                assert await client.follow(await client.submit(body, content_type)) == len(pngs)
                rows[kind].append(cost.of(len(pngs)))
    return {kind: _median(of_kind) for kind, of_kind in rows.items()}


async def million(pngs: list[bytes]) -> dict[str, Any]:
    """1,000,000 PNGs in an open job of 20 parts, four at a time; results are read while it runs."""
    async with connected(OWNER_PENDING_ITEMS_MAX="2000000") as client:
        await client.wait(await client.submit(tar_of(pngs)))  # warm-up
        small = CpuCost(client.servers)
        assert await client.follow(await client.submit(tar_of(pngs))) == len(pngs)
        baseline = small.of(len(pngs))
        client.servers.reset_peak("api")
        before, _ = client.servers.memory_bytes("api")
        cost = CpuCost(client.servers)
        path = await client.open_job()
        reader = asyncio.create_task(client.follow(path))
        await _send_parts(client, path, tar_of(pngs * (_PART_IMAGES // len(pngs))))
        count = await reader
        assert count == _PARTS * _PART_IMAGES, count
        result = cost.of(count)
        _, peak = client.servers.memory_bytes("api")
        used = client.service.stack.redis.info("memory")["used_memory_peak"]
        started = time.perf_counter()
        async with client.http.delete(path) as response:
            assert response.status == 204
        delete_ms = round(1000 * (time.perf_counter() - started), 1)
    return {
        **result,
        "cost_by_that_of_10000": round(result["server_cpu_ms_per_image"] / baseline["server_cpu_ms_per_image"], 2),
        "redis_used_memory_peak_mib": used >> 20,
        "redis_maxmemory_mib": GIB >> 20,
        "api_resident_before_mib": before >> 20,
        "api_resident_peak_mib": peak >> 20,
        "delete_ms": delete_ms,
    }


async def _send_parts(client: BulkClient, path: str, body: bytes) -> None:
    """Send the same part 20 times, four at a time, and seal the job."""
    turns = asyncio.Semaphore(4)

    async def send(number: int) -> None:
        async with turns:
            headers = TAR | {"Idempotency-Key": f"part-{number}"}
            await client.post(f"{path}/items", pieces(body), **headers)

    await asyncio.gather(*(send(number) for number in range(_PARTS)))
    await client.post(f"{path}/seal")


async def upload(pngs: list[bytes]) -> dict[str, Any]:
    """2 GB of a tar of 64 KB files: how much memory the API takes for it."""
    data = pngs[0] + os.urandom(64 * 1024 - len(pngs[0]))

    async def body() -> AsyncIterator[bytes]:
        for number in range((2 << 30) // len(data)):
            member = tarfile.TarInfo(f"{number:07}.png")
            member.size = len(data)
            yield member.tobuf() + data
        yield bytes(1024)

    async with connected() as client:
        await client.wait(await client.submit(tar_of(pngs)))  # warm-up
        client.servers.reset_peak("api")
        before, _ = client.servers.memory_bytes("api")
        cost = CpuCost(client.servers)
        job = await client.post("/v1/jobs", body(), **TAR)
        count = (await client.wait(job["links"]["self"]))["counts"]["total"]
        result = cost.of(count)
        _, peak = client.servers.memory_bytes("api")
        used = client.service.stack.redis.info("memory")["used_memory_peak"]
    return {
        "bytes": count * len(data),
        **result,
        "api_resident_before_mib": before >> 20,
        "api_resident_peak_mib": peak >> 20,
        "redis_used_memory_peak_mib": used >> 20,
    }


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]} | {"runs": len(rows)}
