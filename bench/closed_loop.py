"""A closed loop: each client submits an image, waits for its result, and submits the next."""

import asyncio
import time
from collections.abc import Iterator

import aiohttp

from tests.support.stack import PNG


async def closed_loop(
    url: str, images: Iterator[bytes], *, in_flight: int, seconds: float
) -> tuple[float, list[float]]:
    """Images a second, and the sorted latencies in seconds."""
    began = time.monotonic()
    latencies = list[float]()

    async def client(http: aiohttp.ClientSession) -> None:
        while (now := time.monotonic()) < began + seconds:
            headers = PNG | {"Prefer": "wait=30"}
            async with http.post("/v1/jobs", data=next(images), headers=headers) as answer:
                assert answer.status in (200, 202), await answer.text()
                job = await answer.json()
            while job["status"] in ("queued", "running"):
                async with http.get(f"{job['links']['self']}?wait=30") as answer:
                    assert answer.status == 200, await answer.text()
                    job = await answer.json()
            latencies.append(time.monotonic() - now)

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(client(http) for _ in range(in_flight)))
    return len(latencies) / (time.monotonic() - began), sorted(latencies)
