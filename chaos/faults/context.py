"""What every fault acts on, and how recovery from it is measured.

A fault that needs a moment that does not occur (a held lease, an upload in progress) raises NotInjected.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from redis.exceptions import RedisError

from chaos.fleet import Fleet
from chaos.load import Load
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.processes import Process, Worker

MODEL = "fmnist-mlp"
MOMENT_SECONDS_MAX = 10
RECOVERY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 75


class NotInjected(Exception):
    """Why a fault could not be injected."""


class StoppedLease(NamedTuple):
    """A lease whose process was stopped while it owned chunks."""

    token: bytes
    chunk_refs: list[bytes]


@dataclass(frozen=True)
class FaultContext:
    fleet: Fleet
    load: Load
    random: random.Random
    probe_image: bytes
    freeze_seconds: float
    deploys: int

    async def seconds_until_work(self, since: float) -> float:
        """Seconds from `since` until a fresh image has its class."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6)) as http:
            while time.monotonic() < since + RECOVERY_SECONDS_MAX:
                for url in self.fleet.urls:
                    headers = {"Content-Type": "image/png", "Prefer": "wait=5"}
                    with suppress(aiohttp.ClientError, OSError, TimeoutError):
                        self.load.probes += 1
                        async with http.post(f"{url}/v1/jobs", data=self.probe_image, headers=headers) as response:
                            if response.status == 200:
                                return time.monotonic() - since
                await asyncio.sleep(0.02)
        return float("inf")

    async def seconds_until_redone(self, lease: StoppedLease, since: float) -> float:
        """Seconds from `since` until all chunks of a dead process's lease have results."""

        def is_done() -> bool:
            try:
                for ref in lease.chunk_refs:
                    record = self.fleet.redis.hmget(job_key(ref[:16]), "s", f"r{int.from_bytes(ref[16:20], 'big')}")
                    if record[0] in (b"o", b"q", b"r") and record[1] is None:
                        return False
            except RedisError:
                return False
            return True

        while time.monotonic() < since + RECOVERY_SECONDS_MAX:
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
                chunk_refs = list(redis.smembers(keys.LEASE.encode() + token))
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

    def worker(self) -> Worker:
        """A random worker that has processes."""
        running = [worker for worker in self.fleet.workers if worker.running() and worker.children()]
        if not running:
            raise NotInjected("no worker is up")
        return self.random.choice(running)


Fault = Callable[[FaultContext], Awaitable[float]]
