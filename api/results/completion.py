"""Wakes responses that wait for a job to end, by one Redis subscription a process instead of a poll for each client.

A waiter subscribes before it reads the job: if the job ends in between, the read or the notice shows it. The notice of
a job of one image contains the result. A notice that is lost with the connection is made up for: after each reconnect,
and every few seconds, this process reads the state of every awaited job.
"""

import asyncio
import logging
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.requests import Request

from api.connection_state import wait_for_disconnect
from jobs.errors import StoreUnavailable
from jobs.logs.outage_log import OutageLog
from jobs.records import Job
from jobs.store.for_api.job_reader import JobReader
from jobs.store.keys import ENDED_CHANNEL
from jobs.store.notices import apply_notice, unpack_notices

log = logging.getLogger(__name__)

REREAD_SECONDS = 2  # between two reads of all awaited jobs, in case a notice was lost
_WATCH_CLIENT_AFTER_SECONDS = 0.5  # most jobs have ended by then, and need no task that watches the client
_JOBS_A_READ = 1000
_RESUBSCRIBE_SECONDS = 0.2


class JobCompletions:
    """The waiters of this process, each a future in the set of its job."""

    def __init__(self, reader: JobReader, redis_url: str, database: int) -> None:
        self._reader = reader
        self._redis_url = redis_url
        self._channel = f"{ENDED_CHANNEL}.{database}"
        self._futures = defaultdict[bytes, set[asyncio.Future[bytes]]](set)
        self._expected = set[bytes]()  # jobs whose submit is in progress: absent from the store, but not deleted
        self._outage = OutageLog("completion notices: waiting for Redis")
        self._tasks = list[asyncio.Task[None]]()
        self.released = False
        """Whether `release` was called."""

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._reread_regularly())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self) -> None:
        """Wake all waiters, now and in the future: the process stops, and responses show their jobs as they are."""
        self.released = True
        for job_id in list(self._futures):
            self._wake(job_id)

    @property
    def waiting(self) -> int:
        """How many waiters there are."""
        return sum(len(futures) for futures in self._futures.values())

    @contextmanager
    def subscribe(self, job_id: bytes, *, expected: bool = False) -> Iterator[asyncio.Future[bytes]]:
        """A future that is done once the job has ended or was deleted. Read the job only inside this context.

        The future's result is a payload for `apply_notice`. With `expected`, the job does not exist yet: until
        `accepted` is called, its absence from the store does not count as deleted.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._futures[job_id].add(future)
        if expected:
            self._expected.add(job_id)
        if self.released:
            _finish(future)
        try:
            yield future
        finally:
            futures = self._futures[job_id]
            futures.discard(future)
            if not futures:
                del self._futures[job_id]
                self._expected.discard(job_id)

    def accepted(self, job_id: bytes) -> None:
        """An expected job is in the store now."""
        self._expected.discard(job_id)

    async def wait_until_ended(self, job: Job, seconds: float, request: Request) -> Job:
        """The job once it has ended, `seconds` have passed or the client disconnects. Raises as `JobReader.get`."""
        with self.subscribe(job.id) as ended:
            job = await self._reader.get(job.id, job.owner)
            if job.state.ended:
                return job
            payload = await wait_for(ended, seconds, request)
            return job if apply_notice(job, payload) else await self._reader.get(job.id, job.owner)

    async def reread(self) -> None:
        """Read the state of every awaited job, and wake the waiters of those that have ended or were deleted."""
        job_ids = list(self._futures.keys() - self._expected)
        for start in range(0, len(job_ids), _JOBS_A_READ):
            for job_id in await self._reader.ended(job_ids[start : start + _JOBS_A_READ]):
                self._wake(job_id)

    def _wake(self, job_id: bytes, payload: bytes = b"") -> None:
        for future in self._futures.get(job_id, ()):
            _finish(future, payload)

    async def _listen(self) -> None:
        # Without retries: redis-py would resubscribe by itself, and `reread` would not run after a reconnect.
        retry = Retry(NoBackoff(), 0)
        while True:
            try:
                async with (
                    Redis.from_url(self._redis_url, socket_timeout=None, health_check_interval=5, retry=retry) as redis,
                    redis.pubsub(ignore_subscribe_messages=True) as pubsub,
                ):
                    await pubsub.subscribe(self._channel)
                    await self.reread()
                    self._outage.recovered()
                    async for message in pubsub.listen():
                        self._read_notices(message["data"])
            except (RedisError, OSError, StoreUnavailable) as error:
                self._outage.failed(error)
                await asyncio.sleep(_RESUBSCRIBE_SECONDS)

    def _read_notices(self, notices: bytes) -> None:
        try:
            for job_id, payload in unpack_notices(notices):
                self._wake(job_id, payload)
        except struct.error as error:  # the next `reread` wakes the waiters
            log.warning("cannot parse a completion notice: %s", error)

    async def _reread_regularly(self) -> None:
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            try:
                await self.reread()
            except StoreUnavailable:
                pass
            except Exception:  # the loop must survive any error
                log.exception("cannot read the state of the awaited jobs")


async def wait_for(future: asyncio.Future[bytes], seconds: float, request: Request) -> bytes:
    """Wait for a future of `subscribe`, at most `seconds` and only while the client is connected.

    Returns the future's result, or b"" if the wait ended without one.
    """
    loop = asyncio.get_running_loop()
    disconnected: asyncio.Task[None] | None = None

    def watch_client() -> None:
        nonlocal disconnected
        disconnected = loop.create_task(wait_for_disconnect(request))
        disconnected.add_done_callback(lambda _: _finish(future))

    timeout = loop.call_later(seconds, _finish, future)
    watch = loop.call_later(_WATCH_CLIENT_AFTER_SECONDS, watch_client)
    try:
        return await future
    finally:
        timeout.cancel()
        watch.cancel()
        if disconnected is not None:
            disconnected.cancel()


def _finish(future: asyncio.Future[bytes], payload: bytes = b"") -> None:
    if not future.done():
        future.set_result(payload)
