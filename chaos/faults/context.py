"""What every fault acts on, and how recovery from it is measured.

A fault that needs a moment that does not occur (a held lease, an upload in progress) raises NotInjected.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
from redis.exceptions import RedisError

from chaos.clients.load import OWNERS, Load
from chaos.fleet import Fleet
from chaos.ledger import Doubt, Ledger
from chaos.store_audit import StoreAudit
from jobs.records import STATE_OF_CODE, ChunkRef
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from tests.support.processes import Process, Worker

MODEL = "fmnist-mlp"
MOMENT_SECONDS_MAX = 10
STOP_SECONDS_MAX = 75
STEADY_SECONDS, STEADY_WAIT_SECONDS_MAX = 0.5, 20.0


class NotInjected(Exception):
    """Why a fault could not be injected."""


class StoppedLease(NamedTuple):
    """A lease whose process was stopped while it owned chunks."""

    token: bytes
    chunk_refs: list[ChunkRef]


@dataclass(frozen=True)
class FaultContext:
    fleet: Fleet
    load: Load
    ledger: Ledger
    audit: StoreAudit
    random: random.Random
    probe_image: bytes
    freeze_seconds: float
    deploys: int
    result_ttl_seconds: float
    recovery_seconds_max: float

    async def seconds_until_work(self, since: float) -> float:
        """Seconds from `since` until a fresh image has its class."""
        while time.monotonic() < since + self.recovery_seconds_max:
            for url in self.fleet.urls:
                if await self.probe(url, self.probe_image) == HTTPStatus.OK:
                    return time.monotonic() - since
            await asyncio.sleep(0.02)
        return float("inf")

    async def until_steady(self) -> None:
        """What the fault before left waiting is done: a fresh image has its class at once. It may last, for a while."""
        until = time.monotonic() + STEADY_WAIT_SECONDS_MAX
        while time.monotonic() < until:
            if await self.seconds_until_work(time.monotonic()) < STEADY_SECONDS:
                return
            await asyncio.sleep(0.5)

    async def probe(self, url: str, image: bytes, wait_seconds: int = 5) -> int:
        """Submit an image to this API, and wait for its end. The response's status, or 0 if there was none."""
        owner, key = next(iter(OWNERS.items()))
        headers = {"Content-Type": "image/png", "Authorization": f"Bearer {key}"}
        if wait_seconds:
            headers["Prefer"] = f"wait={wait_seconds}"
        began = time.time()
        timeout = aiohttp.ClientTimeout(total=wait_seconds + 1.5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(f"{url}/v1/jobs", data=image, headers=headers) as response,
            ):
                body = await response.json(content_type=None)
        except aiohttp.ClientConnectorError:
            return 0
        except (aiohttp.ClientError, OSError, TimeoutError):
            body = {"outcome": "unknown"}
        for name in ("id", "job_id"):
            if name in body:
                self.ledger.know(body[name])
        if body.get("outcome") == "unknown":
            self.ledger.doubts.append(Doubt(owner, "", began, time.time()))
            return 0
        return response.status

    async def seconds_until_redone(self, lease: StoppedLease, since: float) -> float:
        """Seconds from `since` until all chunks of a dead process's lease have results."""

        def is_done() -> bool:
            try:
                for ref in lease.chunk_refs:
                    fields = (keys.FIELDS["state"], chunk_field("results", ref.chunk))
                    state, results = self.fleet.redis.hmget(job_key(ref.job_id), *fields)
                    if state is not None and not STATE_OF_CODE[state].ended and results is None:
                        return False
            except RedisError:
                return False
            return True

        while time.monotonic() < since + self.recovery_seconds_max:
            if await asyncio.to_thread(is_done):
                return time.monotonic() - since
            await asyncio.sleep(0.01)
        return float("inf")

    async def stop_in_lease(self, pids: list[int], send: Callable[[signal.Signals], None]) -> StoppedLease:
        """Stop processes (SIGSTOP) at a moment at which one of these pids owns a lease.

        Raises:
            NotInjected: none of them owned one within MOMENT_SECONDS_MAX.
        """

        def try_once() -> StoppedLease | None:
            redis = self.fleet.redis
            for token in redis.zrange(keys.LEASES, 0, -1):
                if int(token.split(b"|")[2]) not in pids:
                    continue
                send(signal.SIGSTOP)
                members = redis.smembers(keys.LEASED_CHUNKS.encode() + token)
                chunk_refs = list(map(ChunkRef.unpack, members))
                if chunk_refs:
                    return StoppedLease(token, chunk_refs)
                send(signal.SIGCONT)
            return None

        def search() -> StoppedLease:
            until = time.monotonic() + MOMENT_SECONDS_MAX
            while time.monotonic() < until:
                try:
                    if (lease := try_once()) is not None:
                        return lease
                except RedisError:
                    send(signal.SIGCONT)
                time.sleep(0.0005)
            raise NotInjected("no process owned a lease")

        return await asyncio.to_thread(search)

    async def restart(self, process: Process, number: signal.Signals) -> float:
        """End a process with a signal, and start it again. Seconds from the signal until work goes on."""
        async with self.fleet.down(process):
            since = time.monotonic()
            process.signal(number)
            await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
            recovery = asyncio.create_task(self.seconds_until_work(since))
        return await recovery

    async def seconds_until_all_work(self, since: float) -> float:
        """Seconds from `since` until a fresh image has its class and each worker is back with all its children."""
        seconds = await self.seconds_until_work(since)
        while time.monotonic() < since + self.recovery_seconds_max:
            try:
                if not await asyncio.to_thread(self.fleet.workers_missing):
                    return seconds
            except RedisError:
                pass
            await asyncio.sleep(0.1)
        return float("inf")

    async def cut_connections(self) -> None:
        """Redis closes all connections of its clients."""
        for kind in ("normal", "pubsub"):
            await asyncio.to_thread(self.fleet.redis.execute_command, "CLIENT", "KILL", "TYPE", kind)

    def worker(self) -> Worker:
        """A random worker that has processes."""
        running = [worker for worker in self.fleet.workers if worker.running() and worker.children()]
        if not running:
            raise NotInjected("no worker is up")
        return self.random.choice(running)


Fault = Callable[[FaultContext], Awaitable[float]]
