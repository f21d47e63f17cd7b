"""A whole stack of real processes: Valkey, the API, workers."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp
import redis

from jobs.store import keys
from jobs.store.keys import OwnerToken
from tests.support.processes import MAXMEMORY_BYTES, Api, Valkey, Worker
from tests.support.waiting import wait_until

PNG = {"Content-Type": "image/png"}
IN_FLIGHT = 32
STALLS_MAX = 5  # a busy disk keeps Redis from replying for two seconds


class Stack:
    """Starts services on demand, and ends all of them."""

    def __init__(self, folder: Path, *, maxmemory_bytes: int = MAXMEMORY_BYTES, **settings: str) -> None:
        self._folder = folder
        self._maxmemory_bytes = maxmemory_bytes
        self._settings = {"REDIS_MAXMEMORY_BYTES": str(maxmemory_bytes)} | settings
        self._exits = ExitStack()
        self._workers = 0
        self.valkey: Valkey
        self.redis: redis.Redis[bytes]

    def __enter__(self) -> Self:
        self.valkey = self._exits.enter_context(Valkey(self._folder / "vk", maxmemory_bytes=self._maxmemory_bytes))
        self.redis = self._exits.enter_context(self.valkey.client)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def api(self, **settings: str) -> Api:
        api = Api(self.valkey.url, self._folder / "api.log", **self._settings | settings)
        return self._exits.enter_context(api)

    def worker(self, children: int = 2, **settings: str) -> Worker:
        self._workers += 1
        log = self._folder / f"worker{self._workers}.log"
        return self._exits.enter_context(Worker(self.valkey.url, log, children=children, **self._settings | settings))

    # -- for tests

    def freeze_child_with_lease(self, worker: Worker) -> int:
        """Stop (SIGSTOP) a child of the worker at a moment when it has a lease. Returns its pid.

        Leases last for milliseconds: the test must submit jobs all the time during this call. A child that is started
        meanwhile, in place of one that died, counts.
        """
        found: list[int] = []
        children = set[int]()

        def frozen() -> bool:
            for token in self.redis.zrange(keys.LEASES, 0, -1):
                pid = OwnerToken.unpack(token).pid
                if pid not in children:
                    children.clear()
                    children.update(worker.children())
                if pid not in children:
                    continue
                os.kill(pid, signal.SIGSTOP)
                if self.redis.zscore(keys.LEASES, token) is not None:
                    found.append(pid)
                    return True
                os.kill(pid, signal.SIGCONT)
            return False

        # A busy machine may take minutes to start the children anew that died before.
        wait_until(frozen, seconds=240, what="a lease of one of the children", poll_seconds=0.0005)
        return found[0]

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    def wait_for_transitions(self, items: int, *, seconds: float = 60) -> None:
        wait_until(lambda: self.stat("transitions") >= items, seconds=seconds, what=f"{items} terminal states")


def load_client(url: str, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
    """A client that is cheap enough for thousands of requests."""
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=IN_FLIGHT), headers=headers)


async def answer_of(request: Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]) -> tuple[int, Any]:
    """Status and body, of a client that repeats what was refused because Redis did not reply in time."""
    for _ in range(STALLS_MAX):
        async with request() as response:
            status, body = response.status, await response.json()
        if status != HTTPStatus.SERVICE_UNAVAILABLE or body.get("code") != "store_unavailable" or "job_id" in body:
            break
        await asyncio.sleep(float(response.headers["Retry-After"]))
    return status, body


async def submit_all(url: str, images: list[bytes], headers: Mapping[str, str] | None = None) -> list[str]:
    """Submit each image as a job of its own. Returns the ids of the jobs, in order."""
    async with load_client(url, headers) as client:

        async def submit(image: bytes) -> str:
            status, job = await answer_of(lambda: client.post("/v1/jobs", data=image, headers=PNG))
            assert status == HTTPStatus.ACCEPTED, job
            return str(job["id"])

        return await asyncio.gather(*map(submit, images))


async def results_of(
    url: str, job_ids: list[str], *, wait_seconds: int = 30, headers: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Wait for each job. Returns their `result`s."""
    async with load_client(url, headers) as client:

        async def result(job_id: str) -> dict[str, Any]:
            status, job = await answer_of(lambda: client.get(f"/v1/jobs/{job_id}?wait={wait_seconds}"))
            assert status == HTTPStatus.OK, job
            assert job["status"] in ("completed", "failed"), job
            found: dict[str, Any] = job["result"]
            return found

        return await asyncio.gather(*map(result, job_ids))
