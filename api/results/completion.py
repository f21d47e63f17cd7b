"""Answers that are held until a job ends: one subscription a process wakes them, not a poll for each client.

A waiter registers, then reads: a job that ends in between is seen by one or the other. The notice of a job of one image
has its result with it. One that is lost with its connection is made up for by reading all waiters again, after each
reconnect and every few seconds.
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
from starlette.types import Receive

from jobs.errors import StoreUnavailable
from jobs.store.job_reader import JobReader
from jobs.store.keys import ENDED_CHANNEL
from jobs.store.notices import unpack_notices

log = logging.getLogger(__name__)

REREAD_SECONDS = 2  # between two reads of all jobs that are waited for, in case a notice was lost
_WATCH_AFTER_SECONDS = 0.5  # most jobs have ended by then, and nobody asks whether their client is still there
_REREAD_AT_ONCE = 1000
_RESUBSCRIBE_SECONDS = 0.2


class JobCompletions:
    def __init__(self, store: JobReader, redis_url: str, database: int) -> None:
        self._store = store
        self._redis_url = redis_url
        self._channel = f"{ENDED_CHANNEL}.{database}"
        self._waiting = defaultdict[bytes, set[asyncio.Future[bytes]]](set)
        self._to_come = set[bytes]()  # whose submit is under way: they are not gone, they are not there yet
        self._tasks = list[asyncio.Task[None]]()
        self.released = False
        """Whether the process stops, and nobody is to wait any more."""

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._reread_now_and_then())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self) -> None:
        """From now on nobody waits: the process stops, and held answers go out as things stand."""
        self.released = True
        for job_id in list(self._waiting):
            self._wake(job_id)

    @contextmanager
    def subscribe(self, job_id: bytes, *, expected: bool = False) -> Iterator[asyncio.Future[bytes]]:
        """A future that is done once the job has ended or is gone. Look at the job only after this was entered.

        Its result is what `apply_notice` takes. One that is `expected` is not gone before it `accepted`.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(future)
        if expected:
            self._to_come.add(job_id)
        if self.released:
            _finish(future)
        try:
            yield future
        finally:
            futures = self._waiting[job_id]
            futures.discard(future)
            if not futures:
                del self._waiting[job_id]
                self._to_come.discard(job_id)

    def accepted(self, job_id: bytes) -> None:
        """The job is in the store."""
        self._to_come.discard(job_id)

    def _wake(self, job_id: bytes, told: bytes = b"") -> None:
        for future in self._waiting.get(job_id, ()):
            _finish(future, told)

    async def _listen(self) -> None:
        retry = Retry(NoBackoff(), 0)  # redis-py would subscribe again by itself, and nobody would be read again
        subscribed = True
        while True:
            try:
                async with (
                    Redis.from_url(self._redis_url, socket_timeout=None, health_check_interval=5, retry=retry) as redis,
                    redis.pubsub(ignore_subscribe_messages=True) as pubsub,
                ):
                    await pubsub.subscribe(self._channel)
                    await self._reread()
                    subscribed = True
                    async for message in pubsub.listen():
                        self._take(message["data"])
            except (RedisError, OSError, StoreUnavailable) as error:
                if subscribed:
                    log.warning("the subscription is lost and starts again: %s", error)
                subscribed = False
                await asyncio.sleep(_RESUBSCRIBE_SECONDS)

    def _take(self, notices: bytes) -> None:
        try:
            for job_id, told in unpack_notices(notices):
                self._wake(job_id, told)
        except struct.error as error:  # those who wait are read in a while
            log.warning("a notice cannot be understood: %s", error)

    async def _reread_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            try:
                await self._reread()
            except StoreUnavailable:
                pass
            except Exception:  # whatever it is, the next round must come
                log.exception("cannot read those who wait")

    async def _reread(self) -> None:
        waiting = list(self._waiting.keys() - self._to_come)
        for start in range(0, len(waiting), _REREAD_AT_ONCE):
            for job_id in await self._store.ended(waiting[start : start + _REREAD_AT_ONCE]):
                self._wake(job_id)


async def wait_for(future: asyncio.Future[bytes], seconds: float, receive: Receive) -> bytes:
    """Wait for the future, so many seconds, or until the client goes away. Returns its result, or b""."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal gone
        gone = loop.create_task(_disconnect(receive))
        gone.add_done_callback(lambda _: _finish(future))

    over = loop.call_later(seconds, _finish, future)
    watching = loop.call_later(_WATCH_AFTER_SECONDS, watch)
    try:
        return await future
    finally:
        over.cancel()
        watching.cancel()
        if gone is not None:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _finish(future: asyncio.Future[bytes], told: bytes = b"") -> None:
    if not future.done():
        future.set_result(told)
