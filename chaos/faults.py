"""The faults. Each breaks something, mends it, and returns in how many seconds work went on.

A fault that needs a moment that did not come (a lease to be held, an archive on its way) raises NotInjected.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from redis.exceptions import RedisError

from chaos.fleet import Fleet, signal_tree
from chaos.load import Load
from jobs.records import STATE_OF_CODE, ChunkRef
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import OwnerToken
from tests.support.processes import Process, Worker

MODEL = "fmnist-mlp"
QUEUE = f"{keys.QUEUE}{MODEL}"
MOMENT_SECONDS_MAX = 10
RECOVERY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 75
CLOCK_STEP_SECONDS = 20
CLOCK_SEEN_SECONDS = 1.5  # libfaketime looks once a second


class NotInjected(Exception):
    """Why a fault could not be injected."""


class FollowedStreams(NamedTuple):
    """A lease that a stopped process holds."""

    token: bytes
    entries: list[bytes]


@dataclass(frozen=True)
class Ground:
    """What faults act on."""

    fleet: Fleet
    load: Load
    random: random.Random
    probe_image: bytes
    freeze_seconds: float
    deploys: int

    async def work_goes_on(self, since: float) -> float:
        """Seconds from `since` until a fresh image has its class."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6)) as http:
            while time.monotonic() < since + RECOVERY_SECONDS_MAX:
                for url in self.fleet.urls:
                    headers = {"Content-Type": "image/png", "Prefer": "wait=5"}
                    with suppress(aiohttp.ClientError, OSError, TimeoutError):
                        self.load.probes += 1
                        async with http.post(f"{url}/v1/jobs", data=self.probe_image, headers=headers) as answer:
                            if answer.status == 200:
                                return time.monotonic() - since
                await asyncio.sleep(0.02)
        return float("inf")

    async def done_again(self, held: FollowedStreams, since: float) -> float:
        """Seconds from `since` until all that a dead process held has its results."""

        def done() -> bool:
            try:
                for entry in held.entries:
                    ref = ChunkRef.unpack(entry)
                    names = (keys.FIELDS["state"], chunk_field("results", ref.chunk))
                    state, results = self.fleet.redis.hmget(job_key(ref.job_id), *names)
                    if state is not None and not STATE_OF_CODE[state].ended and results is None:
                        return False
            except RedisError:
                return False
            return True

        while time.monotonic() < since + RECOVERY_SECONDS_MAX:
            if await asyncio.to_thread(done):
                return time.monotonic() - since
            await asyncio.sleep(0.01)
        return float("inf")

    async def stop_while_it_holds_a_lease(
        self, pids: list[int], stop: Callable[[signal.Signals], None]
    ) -> FollowedStreams:
        """Stop (SIGSTOP) processes at a moment when one of these pids holds a lease."""

        def look() -> FollowedStreams | None:
            redis = self.fleet.redis
            for token in redis.zrange(keys.LEASES, 0, -1):
                if OwnerToken.unpack(token).pid not in pids:
                    continue
                stop(signal.SIGSTOP)
                entries = list(redis.smembers(keys.LEASED_CHUNKS.encode() + token))
                if entries:
                    return FollowedStreams(token, entries)
                stop(signal.SIGCONT)
            return None

        def search() -> FollowedStreams:
            until = time.monotonic() + MOMENT_SECONDS_MAX
            while time.monotonic() < until:
                try:
                    if (held := look()) is not None:
                        return held
                except RedisError:
                    stop(signal.SIGCONT)
                time.sleep(0.0005)
            raise NotInjected("no lease was held")

        return await asyncio.to_thread(search)

    def worker(self) -> Worker:
        running = [worker for worker in self.fleet.workers if worker.running() and worker.children()]
        if not running:
            raise NotInjected("no worker is up")
        return self.random.choice(running)


Fault = Callable[[Ground], Awaitable[float]]


async def child_killed(ground: Ground) -> float:
    worker = ground.worker()
    pids = worker.children()
    pid = ground.random.choice(pids)

    def stop(number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    held = await ground.stop_while_it_holds_a_lease([pid], stop)
    stop(signal.SIGKILL)
    return await ground.done_again(held, time.monotonic())


async def worker_killed(ground: Ground) -> float:
    worker = ground.worker()
    return await _kill_holding(ground, worker, await _stop_holding(ground, worker))


async def worker_frozen(ground: Ground) -> float:
    """SIGSTOP: its leases lapse and others do the work. Then SIGCONT: what it still finishes must be refused."""
    worker = ground.worker()
    held = await _stop_holding(ground, worker)
    since = time.monotonic()
    seconds = await ground.done_again(held, since)
    await asyncio.sleep(max(0.0, since + ground.freeze_seconds - time.monotonic()))
    signal_tree(worker, signal.SIGCONT)
    return seconds


async def _stop_holding(ground: Ground, worker: Worker) -> FollowedStreams:
    return await ground.stop_while_it_holds_a_lease(worker.children(), lambda number: signal_tree(worker, number))


async def _kill_holding(ground: Ground, worker: Worker, held: FollowedStreams) -> float:
    """A container's death: all of its processes at once."""
    async with ground.fleet.down(worker):
        signal_tree(worker, signal.SIGKILL)
        recovered = asyncio.create_task(ground.done_again(held, time.monotonic()))
        await asyncio.to_thread(worker.wait)
    return await recovered


async def worker_stopped(ground: Ground) -> float:
    return await _stopped(ground, ground.worker())


async def api_killed(ground: Ground) -> float:
    """In the middle of an upload."""
    until = time.monotonic() + MOMENT_SECONDS_MAX
    while not (busy := [api for api in ground.fleet.apis if ground.load.streams[api.url] > 0 and api.running()]):
        if time.monotonic() > until:
            raise NotInjected("no archive was on its way")
        await asyncio.sleep(0.005)
    return await _killed(ground, ground.random.choice(busy))


async def api_killed_before_its_answer(ground: Ground) -> float:
    """Redis has the submits, and the API dies before it can say so."""
    api = ground.random.choice(ground.fleet.apis)
    valkey = ground.fleet.valkey
    async with ground.fleet.closed(), ground.fleet.down(valkey):
        valkey.signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        killed = asyncio.create_task(_killed(ground, api))
        await asyncio.sleep(0.05)
        valkey.signal(signal.SIGCONT)
    return await killed


async def api_stopped(ground: Ground) -> float:
    return await _stopped(ground, ground.random.choice(ground.fleet.apis))


async def redis_killed(ground: Ground) -> float:
    async with ground.fleet.closed():
        return await _killed(ground, ground.fleet.valkey)


async def redis_stopped(ground: Ground) -> float:
    async with ground.fleet.closed():
        return await _stopped(ground, ground.fleet.valkey)


async def _killed(ground: Ground, process: Process) -> float:
    return await _ended(ground, process, signal.SIGKILL)


async def _stopped(ground: Ground, process: Process) -> float:
    return await _ended(ground, process, signal.SIGTERM)


async def _ended(ground: Ground, process: Process, number: signal.Signals) -> float:
    """End a process, and start it again."""
    async with ground.fleet.down(process):
        since = time.monotonic()
        process.signal(number)
        await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        recovered = asyncio.create_task(ground.work_goes_on(since))
    return await recovered


async def redis_frozen(ground: Ground) -> float:
    async with ground.fleet.closed(), ground.fleet.down(ground.fleet.valkey):
        ground.fleet.valkey.signal(signal.SIGSTOP)
        await asyncio.sleep(ground.freeze_seconds)
        ground.fleet.valkey.signal(signal.SIGCONT)
        since = time.monotonic()
    return await ground.work_goes_on(since)


async def connections_cut(ground: Ground) -> float:
    since = time.monotonic()
    for kind in ("normal", "pubsub"):
        await asyncio.to_thread(ground.fleet.redis.execute_command, "CLIENT", "KILL", "TYPE", kind)
    return await ground.work_goes_on(since)


async def redis_full(ground: Ground) -> float:
    """At its memory limit claims and finishes go on, until nothing waits."""

    def limit(factor: float) -> int:
        used, before = redis.info("memory")["used_memory"], int(redis.config_get("maxmemory")["maxmemory"])
        redis.config_set("maxmemory", int(used * factor))
        return before

    redis = ground.fleet.redis
    async with ground.fleet.closed():
        before = await asyncio.to_thread(limit, 0.5)
        try:
            since = time.monotonic()
            while await asyncio.to_thread(ground.fleet.stat, "pending:public") > 0:
                if time.monotonic() > since + RECOVERY_SECONDS_MAX:
                    return float("inf")
                await asyncio.sleep(0.01)
            drained = time.monotonic() - since
            await asyncio.sleep(max(0.0, since + 3 - time.monotonic()))
        finally:
            await asyncio.to_thread(redis.config_set, "maxmemory", before)
    await ground.work_goes_on(time.monotonic())
    return drained


async def disk_full(ground: Ground) -> float:
    """Valkey ends at once, since it may not answer for what it cannot write; and at each start until there is room."""
    if not ground.fleet.mounted:
        raise NotInjected("it takes root to mount a small disk")
    valkey = ground.fleet.valkey
    async with ground.fleet.closed():
        async with ground.fleet.full_disk():
            until = time.monotonic() + MOMENT_SECONDS_MAX
            while valkey.running():
                if time.monotonic() > until:
                    raise NotInjected("Redis has not met the full disk")
                await asyncio.sleep(0.02)
            await asyncio.sleep(2)  # started again on the full disk, as a supervisor would
        since = time.monotonic()
        while not await _answers(ground):
            await asyncio.sleep(0.05)
    return await ground.work_goes_on(since)


async def _answers(ground: Ground) -> bool:
    try:
        return bool(await asyncio.to_thread(ground.fleet.redis.ping))
    except RedisError:
        return False


async def clock_stepped(ground: Ground) -> float:
    """Redis' clock, by which all times are kept, goes forwards, and back while a worker that holds a lease dies."""
    fleet = ground.fleet
    if not fleet.steppable:
        raise NotInjected("libfaketime is not there")
    fleet.set_clock(CLOCK_STEP_SECONDS)
    try:
        await asyncio.sleep(CLOCK_SEEN_SECONDS)
        await ground.work_goes_on(time.monotonic())
        worker = ground.worker()
        held = await _stop_holding(ground, worker)
    finally:
        fleet.set_clock(0)
    await asyncio.sleep(CLOCK_SEEN_SECONDS)
    return await _kill_holding(ground, worker, held)


async def queue_emptied(ground: Ground) -> float:
    since = time.monotonic()
    while time.monotonic() < since + 1:
        await asyncio.to_thread(ground.fleet.redis.delete, QUEUE)
        await asyncio.sleep(0.01)
    return await ground.work_goes_on(time.monotonic())


async def doorbells_doubled(ground: Ground) -> float:
    template = ground.fleet.redis.get(keys.DOORBELL_TEMPLATE + MODEL)
    if template is None:
        raise NotInjected("no worker has registered its doorbell")
    bell = template.replace(keys.DOORBELL_PLACEHOLDER.encode(), b"the-same-id")
    since = time.monotonic()
    for _ in range(20):
        await asyncio.to_thread(ground.fleet.redis.lpush, QUEUE, *[bell] * 20)
        await asyncio.sleep(0.05)
    return await ground.work_goes_on(since)


async def old_doorbells(ground: Ground) -> float:
    """Of a version whose task had another name, or other arguments, or that wrote something else altogether."""
    template = ground.fleet.redis.get(keys.DOORBELL_TEMPLATE + MODEL)
    if template is None:
        raise NotInjected("no worker has registered its doorbell")
    message = json.loads(template.replace(keys.DOORBELL_PLACEHOLDER.encode(), b"an-old-id"))
    renamed = message | {"headers": message["headers"] | {"task": "classify_batch"}}
    emptied = message | {"body": "W1tdLCB7fSwge31d"}  # [[], {}, {}]
    since = time.monotonic()
    bells = [json.dumps(each).encode() for each in (renamed, emptied)]
    await asyncio.to_thread(ground.fleet.redis.lpush, QUEUE, *bells)
    return await ground.work_goes_on(since)


async def deploys(ground: Ground) -> float:
    """Everything is restarted, one after another; three times in a row."""
    slowest = 0.0
    for _ in range(ground.deploys):
        for process in (*ground.fleet.apis, *ground.fleet.workers):
            slowest = max(slowest, await _stopped(ground, process))
        slowest = max(slowest, await redis_stopped(ground))
    return slowest


# Each by the name that the table gives it, and how often it comes in a round.
FAULTS: dict[str, tuple[Fault, int]] = {
    "worker's child killed": (child_killed, 5),
    "worker killed": (worker_killed, 3),
    "worker frozen": (worker_frozen, 1),
    "worker stopped (SIGTERM)": (worker_stopped, 1),
    "API killed in an upload": (api_killed, 2),
    "API killed before its answer": (api_killed_before_its_answer, 2),
    "API stopped (SIGTERM)": (api_stopped, 1),
    "Redis killed": (redis_killed, 2),
    "Redis stopped (SIGTERM)": (redis_stopped, 1),
    "Redis frozen": (redis_frozen, 1),
    "connections cut": (connections_cut, 1),
    "Redis at its memory limit": (redis_full, 1),
    "disk full": (disk_full, 1),
    "clock stepped": (clock_stepped, 1),
    "Celery queue emptied": (queue_emptied, 1),
    "doorbells doubled": (doorbells_doubled, 1),
    "doorbells of an older version": (old_doorbells, 1),
    "deploys": (deploys, 1),
}
# What may come at the same time as another fault: each acts on one process that is picked at random.
MIXED = ("worker's child killed", "worker killed", "worker stopped (SIGTERM)", "API killed in an upload")
