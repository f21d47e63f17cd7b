"""A child process of an outbound worker: fetches images and calls webhooks, many at once, in slices of time."""

import asyncio
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import RedisError

from jobs.codec import pack_upload
from jobs.ids import to_text
from jobs.metrics.process_metrics import WEBHOOK_ATTEMPTS
from jobs.records import ChunkRef
from jobs.store.for_workers.leases import Lease
from jobs.store.for_workers.outbound import DeliveryStatus, Due
from jobs.store.keys import FETCH
from jobs.tracing import Attributes, is_open
from jobs.webhooks import Attempt
from worker.lease_client import ClaimLimits, LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.outbound.chunks import ChunkFetcher
from worker.outbound.fetch import Fetcher
from worker.outbound.fetched import RecentlyFetched
from worker.outbound.hosts import HostBusy
from worker.outbound.settings import OutboundSettings
from worker.outbound.web import CheckedHttp
from worker.outbound.webhooks import WebhookCaller
from worker.process_state import ProcessState
from worker.store import open_outbound_store
from worker.work_span import work_span

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # how often a busy child looks for more work, and for free space in the upload budget
T = TypeVar("T")


class OutboundProcess:
    def __init__(
        self, settings: OutboundSettings, worker_id: str, process_state: ProcessState, fetched_folder: Path
    ) -> None:
        """`fetched_folder` is the same for all processes of a worker."""
        self._settings = settings
        self._runner = asyncio.Runner()
        self._store = open_outbound_store(settings)
        self._store_thread = ThreadPoolExecutor(1, "store")  # a blocking client belongs to one thread
        self._turn = itertools.count(os.getpid())
        self._lease_renewer = LeaseRenewer(settings, [(FETCH, f"{FETCH}@1")], worker_id, process_state)
        self._leases = LeaseClient(
            self._store, worker_id, lease_seconds=settings.lease_seconds, renewing=self._lease_renewer.renewing
        )
        self._http = self._runner.run(self._open_http())
        processes = settings.outbound_children
        wait_seconds = settings.fetch_host_wait_seconds_max + settings.fetch_seconds_max
        recently = RecentlyFetched(fetched_folder, processes=processes, wait_seconds=wait_seconds)
        self._chunk_fetcher = ChunkFetcher(settings, Fetcher(settings, self._http, processes=processes), recently)
        self._webhook_caller = WebhookCaller(settings, self._http)
        self._in_progress = 0
        """Images and webhooks."""
        self._webhooks_in_progress = 0
        self._budget_full_until = 0.0
        """Until then no image is fetched: the upload budget had no space for the last ones."""

    def start(self) -> None:
        """Send heartbeats, and renew leases."""
        self._lease_renewer.start()

    def run_slice(self, task_id: str, model: str = FETCH) -> None:  # noqa: ARG002 - outbound work has no model
        """Take work for one slice of time and complete it; what is left waits for the next doorbell."""
        self._runner.run(self._run_slice(task_id))

    def close(self) -> None:
        self._lease_renewer.stop()
        self._runner.run(self._http.close())
        self._runner.close()
        self._store_thread.shutdown()
        self._store.close()

    async def _open_http(self) -> CheckedHttp:
        loop = asyncio.get_running_loop()
        # Names are resolved in threads: enough of them that look-ups by slow name servers, which go on after their
        # fetch has timed out, delay no other fetch.
        loop.set_default_executor(ThreadPoolExecutor(2 * self._settings.fetch_concurrency, "resolver"))
        return CheckedHttp(self._settings)

    async def _run_slice(self, task_id: str) -> None:
        ends = _now() + self._settings.outbound_slice_seconds
        running = set[asyncio.Task[None]]()
        taking = True
        try:
            while taking or running:
                taking = _now() < ends and await self._take(task_id, running)
                if running:
                    _, running = await asyncio.wait(running, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if running:
                await asyncio.wait(running)
        if _now() >= self._budget_full_until:  # else the sweep rings soon enough
            await self._call(self._store.finish, "", [], ring_for=FETCH)

    async def _take(self, task_id: str, running: set[asyncio.Task[None]]) -> bool:
        """Start as much work as there is, up to the concurrency limit. Returns whether there may be more."""
        concurrency = self._settings.fetch_concurrency
        free = concurrency - self._in_progress
        if free <= 0:
            return True
        # At most half are webhooks, so that receivers that hang do not delay images.
        webhooks = min(free, math.ceil(concurrency / 2) - self._webhooks_in_progress)
        if webhooks > 0:
            seconds = self._settings.webhook_seconds_max + 3 * self._settings.store_timeout_seconds
            for due in await self._call(self._store.take_webhooks, webhooks, seconds=seconds):
                self._start(running, 1, due.job.id, self._call_webhook(due))
        while self._in_progress < concurrency and _now() >= self._budget_full_until:
            # One chunk a lease, so that no chunk waits for another's slow server.
            limits = ClaimLimits(items_max=1, unshared_items=1, bulk_items_max=1, bytes_max=1, turn=next(self._turn))
            lease = await self._call(self._leases.claim, FETCH, task_id, limits)
            if not lease.chunks:
                return lease.more
            chunk_ref = lease.chunks[0].chunk_ref
            self._start(running, chunk_ref.items, chunk_ref.job_id, self._fetch(lease))
        return bool(running)

    def _start(self, running: set[asyncio.Task[None]], count: int, job: bytes, work: Coroutine[Any, Any, None]) -> None:
        """Run this work of so many images or webhooks of a job in a task, which never raises."""
        job_id = to_text(job)

        async def guarded() -> None:
            try:
                await work
            except (RedisError, OSError) as error:  # the lease lapses, and the work is repeated
                log.warning("a chunk or webhook waits for the end of its lease: %s", error, extra={"job_id": job_id})
            except Exception:
                log.exception("a chunk or webhook failed", extra={"job_id": job_id})
            finally:
                self._in_progress -= count

        self._in_progress += count
        running.add(asyncio.create_task(guarded()))

    # -- chunks

    async def _fetch(self, lease: Lease) -> None:
        (claimed,) = lease.chunks
        attributes = {"darkroom.items": claimed.chunk_ref.items}
        with (
            self._lease_renewer.renewing(lease.token),
            await self._span("fetch", claimed.chunk_ref.job_id, attributes),
        ):
            try:
                if lease.suspect:
                    images = await self._chunk_fetcher.images_one_by_one(
                        claimed, lambda number: self._call(self._store.renew, lease.token, at_item=number)
                    )
                else:
                    images = await self._chunk_fetcher.images(claimed)
            except HostBusy:
                await self._call(self._leases.release, lease.token)
                return
            await self._deliver(lease.token, claimed.chunk_ref, pack_upload(images))

    async def _deliver(self, token: str, chunk_ref: ChunkRef, images: bytes) -> None:
        """Give the images to the job's model.

        If the upload budget has no space for too long, release the chunk, to be fetched again later.
        """
        until = _now() + self._settings.fetch_room_seconds_max
        while True:
            status = await self._call(self._store.deliver, token, chunk_ref, images)
            if status in (DeliveryStatus.OK, DeliveryStatus.LOST):
                return
            if _now() >= until:
                self._budget_full_until = _now() + self._settings.fetch_room_seconds_max
                await self._call(self._leases.release, token)
                return
            await asyncio.sleep(POLL_SECONDS)

    # -- webhooks

    async def _call_webhook(self, due: Due) -> None:
        self._webhooks_in_progress += 1
        try:
            with await self._span("webhook", due.job.id, {"darkroom.attempt": len(due.attempts) + 1}):
                attempt = await self._webhook_caller.call(due)
        finally:
            self._webhooks_in_progress -= 1
        WEBHOOK_ATTEMPTS.add(_result(attempt))
        again = self._webhook_caller.again_seconds(due, attempt)
        await self._call(self._store.record_attempt, due.job.id, attempt, again_seconds=again)

    async def _span(self, name: str, job_id: bytes, attributes: Attributes) -> AbstractContextManager[None]:
        return await self._call(work_span, self._store, name, [job_id], attributes) if is_open() else nullcontext()

    async def _call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call the store in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_thread, partial(function, *args, **options))


def _result(attempt: Attempt) -> str:
    """Without the receiver's own number: it may send any."""
    if attempt.delivered:
        return "delivered"
    return attempt.outcome if isinstance(attempt.outcome, str) else f"{attempt.outcome // 100}xx"


def _now() -> float:
    return time.monotonic()
