"""An outbound worker's child process: it fetches images and calls webhooks, many at once, in slices of time."""

import asyncio
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import RedisError

from jobs.codec import pack_upload
from jobs.records import ChunkRef
from jobs.store.keys import FETCH, Heartbeat, OwnerToken
from jobs.store.leases import RETURNED, Lease
from jobs.store.outbound import DeliveryStatus, Due
from worker.lease_renewer import LeaseRenewer
from worker.outbound.chunks import ChunkFetcher
from worker.outbound.fetch import Fetcher
from worker.outbound.settings import OutboundSettings
from worker.outbound.store import open_outbound_store
from worker.outbound.web import CheckedHttp
from worker.outbound.webhooks import WebhookCaller

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05  # how often a busy child looks for more work, and for room
T = TypeVar("T")


class OutboundProcess:
    def __init__(self, settings: OutboundSettings, worker_id: str) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._runner = asyncio.Runner()
        self._store = open_outbound_store(settings)
        self._store_thread = ThreadPoolExecutor(1, "store")  # a connection is for one thread
        self._turn = itertools.count(os.getpid())
        self._sequence = itertools.count()
        self._lease_renewer = LeaseRenewer(settings, FETCH, Heartbeat(f"{FETCH}@1", worker_id, os.getpid()))
        self._web = self._runner.run(self._open())
        self._chunks = ChunkFetcher(settings, Fetcher(settings, self._web))
        self._webhook_caller = WebhookCaller(settings, self._web)
        self._busy = 0
        """Images and webhooks at work."""
        self._calls = 0
        """Webhooks at work."""
        self._no_room_until = 0.0

    def start(self) -> None:
        """Show this process as ready, and keep its leases."""
        self._lease_renewer.start()

    def serve(self, task_id: str, _model: str = FETCH) -> None:
        """Take work for one slice of time, end what was taken, and leave the rest to the next doorbell."""
        self._runner.run(self._serve(task_id))

    def close(self) -> None:
        self._lease_renewer.stop()
        self._runner.run(self._web.close())
        self._runner.close()
        self._store_thread.shutdown()
        self._store.close()

    async def _open(self) -> CheckedHttp:
        loop = asyncio.get_running_loop()
        # Names are resolved in threads: enough of them that slow name servers, which outlast a fetch, hold up no other.
        loop.set_default_executor(ThreadPoolExecutor(2 * self._settings.fetch_concurrency, "resolver"))
        return CheckedHttp(self._settings)

    async def _serve(self, task_id: str) -> None:
        ends = _now() + self._settings.outbound_slice_seconds
        running = set[asyncio.Task[None]]()
        taking = True
        try:
            while taking or running:
                taking = _now() < ends and await self._take(task_id, running)
                if running:
                    _, running = await asyncio.wait(running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if running:
                await asyncio.wait(running)
        if _now() >= self._no_room_until:  # else the sweep's bell comes soon enough
            await self._call(self._store.finish, "", [], ring_for=FETCH)

    async def _take(self, task_id: str, running: set[asyncio.Task[None]]) -> bool:
        """Begin as much as there is and as fits. Returns whether there may be more."""
        concurrency = self._settings.fetch_concurrency
        free = concurrency - self._busy
        if free <= 0:
            return True
        calls = min(free, math.ceil(concurrency / 2) - self._calls)  # receivers that hang do not keep images waiting
        if calls > 0:
            seconds = self._settings.webhook_seconds_max + 2 * self._settings.store_timeout_seconds
            for due in await self._call(self._store.take_webhooks, calls, seconds=seconds):
                self._begin(running, 1, self._call_webhook(due))
        while self._busy < concurrency and _now() >= self._no_room_until:
            lease = await self._claim(task_id)
            if not lease.chunks:
                return lease.more
            self._begin(running, lease.chunks[0].chunk_ref.items, self._fetch(lease))
        return bool(running)

    def _begin(self, running: set[asyncio.Task[None]], images: int, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except RedisError as error:  # what was begun lapses, and comes again
                log.warning("a piece of work is left to its lease: %s", error)
            except Exception:
                log.exception("a piece of work failed")
            finally:
                self._busy -= images

        self._busy += images
        running.add(asyncio.create_task(guarded()))

    # -- chunks

    async def _claim(self, task_id: str) -> Lease:
        """A lease on one chunk, so that none waits for another's slow server."""
        token = OwnerToken(self._worker_id, task_id, os.getpid(), next(self._sequence)).pack()
        try:
            return await self._call(self._store.claim, FETCH, token, items_max=1, bytes_max=1, turn=next(self._turn))
        except RedisError:
            await self._give_back(token)  # it may have run though its answer was lost
            raise

    async def _fetch(self, lease: Lease) -> None:
        (claimed,) = lease.chunks
        with self._lease_renewer.renewing(lease.token):
            if lease.suspect:
                images = await self._chunks.images_one_by_one(
                    claimed, lambda number: self._call(self._store.renew, lease.token, at_item=number)
                )
            else:
                images = await self._chunks.images(claimed)
            await self._deliver(lease.token, claimed.chunk_ref, pack_upload(images))

    async def _deliver(self, token: str, entry: ChunkRef, images: bytes) -> None:
        """Hand the images on; where there is no room for too long, give the chunk back, to be fetched again later."""
        until = _now() + self._settings.fetch_room_seconds_max
        while True:
            verdict = await self._call(self._store.deliver, token, entry, images)
            if verdict in (DeliveryStatus.OK, DeliveryStatus.LOST):
                return
            if _now() >= until:
                self._no_room_until = _now() + self._settings.fetch_room_seconds_max
                await self._give_back(token)
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _give_back(self, token: str) -> None:
        try:
            await self._call(self._store.release, token, RETURNED)
        except RedisError:
            log.warning("a lease could not be given back; it lapses in %s s", self._settings.lease_seconds)

    # -- webhooks

    async def _call_webhook(self, due: Due) -> None:
        self._calls += 1
        try:
            attempt = await self._webhook_caller.call(due)
        finally:
            self._calls -= 1
        again = self._webhook_caller.again_seconds(due, attempt)
        await self._call(self._store.record_attempt, due.job.id, attempt, again_seconds=again)

    async def _call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call the store in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_thread, partial(function, *args, **options))


def _now() -> float:
    return time.monotonic()
