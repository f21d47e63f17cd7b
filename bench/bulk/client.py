"""A client of a stack under a bulk benchmark, and the CPU that the servers spend on its jobs."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from bench.bulk.archives import pieces
from bench.servers import Servers
from bench.services import Darkroom, darkroom

TAR = {"Content-Type": "application/x-tar"}
_NDJSON = {"Accept": "application/x-ndjson"}


class BulkClient:
    def __init__(self, service: Darkroom, http: aiohttp.ClientSession) -> None:
        self.service = service
        self.servers = service.servers
        self.http = http

    async def post(self, path: str, data: bytes | AsyncIterator[bytes] | None = None, **headers: str) -> dict[str, Any]:
        async with self.http.post(path, data=data, headers=headers) as response:
            assert response.status < 300, await response.text()
            body: dict[str, Any] = await response.json()
            return body

    async def get(self, path: str) -> dict[str, Any]:
        async with self.http.get(path) as response:
            body: dict[str, Any] = await response.json()
            return body

    async def submit(self, body: bytes, content_type: str = TAR["Content-Type"]) -> str:
        """Submit an archive; the path of its job."""
        job = await self.post("/v1/jobs", pieces(body), **{"Content-Type": content_type})
        return str(job["links"]["self"])

    async def open_job(self) -> str:
        """The path of a new open job."""
        return str((await self.post("/v1/jobs?open=true"))["links"]["self"])

    async def follow(self, path: str, classes: Sequence[str] = ()) -> int:
        """Read all results while the job runs. Asserts that they are in order and succeeded; returns their number.

        If classes are given, image N must be of class N; after the last class, they repeat.
        """
        count, rest = 0, b""
        async with self.http.get(f"{path}/results?follow=true", headers=_NDJSON) as response:
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    assert line.startswith(b'{"index":%d,' % count), line
                    assert b'"status":"succeeded"' in line
                    assert not classes or f'"class":"{classes[count % len(classes)]}"'.encode() in line, line
                    count += 1
        return count

    async def wait(self, path: str) -> dict[str, Any]:
        """The job once it has ended."""
        while True:
            job = await self.get(f"{path}?wait=20")
            if job["status"] in ("completed", "failed", "canceled"):
                return job

    async def submit_and_wait(self, png: bytes) -> float:
        """Seconds from the submit of one image to its result."""
        started = time.perf_counter()
        headers = {"Content-Type": "image/png", "Prefer": "wait=10"}
        async with self.http.post("/v1/jobs", data=png, headers=headers) as response:
            assert response.status == 200, (response.status, await response.text())
            await response.read()
        return time.perf_counter() - started


class CpuCost:
    """Server CPU since this object was made, in ms an image."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._before = servers.cpu_seconds()
        self._started = time.perf_counter()

    def of(self, count: int) -> dict[str, Any]:
        """Throughput and CPU, if `count` images were classified meanwhile."""
        seconds = time.perf_counter() - self._started
        after = self._servers.cpu_seconds()
        each = {name: round(1000 * (after[name] - self._before[name]) / count, 4) for name in after}
        return {
            "images_per_second": round(count / seconds),
            "server_cpu_ms_per_image": round(sum(each.values()), 4),
            **{f"{name}_cpu_ms_per_image": value for name, value in each.items()},
        }


@asynccontextmanager
async def connected(token: str = "", **settings: str) -> AsyncIterator[BulkClient]:
    """A stack with these settings, and a client of it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=None)
    with darkroom(settings) as service:
        async with aiohttp.ClientSession(service.url, headers=headers, timeout=timeout, read_bufsize=1 << 20) as http:
            yield BulkClient(service, http)
