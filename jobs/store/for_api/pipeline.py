"""One asyncio connection to Redis whose concurrent callers share round trips.

Commands that arrive while a pipeline is in flight join the next one: one write, one read and, with
`appendfsync always`, one fsync serve many callers. A lone caller does not wait. redis-py's own pipelines cost 40 to
90 µs of CPU a submit here, this class 4 to 15 µs (docs/decisions/0003-own-redis-pipeline.md).
"""

import asyncio
import logging
from collections import deque

import hiredis

from jobs.logs.outage_log import OutageLog
from jobs.store.for_api.redis_connection import (
    NotSent,
    OnConnect,
    OutcomeUnknown,
    RedisProtocol,
    Request,
    fail,
    log_in,
    open_connection,
)
from jobs.store.redis_url import RedisAddress
from jobs.store.wire import Command, Reply

log = logging.getLogger(__name__)


class PipelinedConnection:
    """Runs commands in groups; see the module's docstring.

    `on_connect` is called with an `execute` function on each new connection, before all other commands.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout_seconds: float,
        group_requests_max: int = 64,
        group_bytes_max: int = 1 << 20,
        on_connect: OnConnect | None = None,
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._requests_max = group_requests_max
        self._bytes_max = group_bytes_max
        self._on_connect = on_connect
        self._waiting = deque[Request]()
        self._idle_waiters = list[asyncio.Future[None]]()
        self._arrived = asyncio.Event()
        self._wire: RedisProtocol | None = None
        self._task: asyncio.Task[None] | None = None
        self._outage = OutageLog("job store: waiting for Redis")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="pipelined connection")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        wire = self._wire
        self._drop()
        if wire is not None:
            await wire.lost
        self._fail_waiting()

    async def execute(self, *commands: Command | bytes) -> list[Reply]:
        """Run the commands in order, in one pipeline with those of other callers.

        Returns one reply a command; an error reply of the server is returned as `hiredis.ReplyError`.

        Raises:
            NotSent: nothing was sent.
            OutcomeUnknown: the commands were sent, and may or may not have run.
        """
        return await self.send(*commands)

    def send(self, *commands: Command | bytes) -> asyncio.Future[list[Reply]]:
        """`execute`, without waiting for the replies."""
        waiter: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append(Request(commands, waiter))
        self._arrived.set()
        return waiter

    @property
    def is_busy(self) -> bool:
        """Whether a pipeline is in flight."""
        return self._wire is not None and self._wire.is_busy

    async def idle(self) -> None:
        """Return once no pipeline is in flight. What the caller sends at once goes into the next one.

        Raises:
            NotSent: the server does not answer.
        """
        if self.is_busy:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            group = self._next_group()
            if not group:
                self._arrived.clear()
                continue
            try:
                await self._run_group(group)
            except Exception:
                log.exception("a group of commands failed; the connection is reopened")
                self._drop()
            finally:
                for request in group:  # no caller waits for ever, whatever went wrong
                    fail(request.waiter, OutcomeUnknown())
            if self._idle_waiters:
                for waiter in self._take_idle_waiters():
                    if not waiter.done():
                        waiter.set_result(None)
                await asyncio.sleep(0)  # they send before the next pipeline is put together

    async def _run_group(self, group: list[Request]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                wire = await self._connected()
        except (OSError, TimeoutError, hiredis.HiredisError, OutcomeUnknown) as error:
            for request in group:
                fail(request.waiter, NotSent())
            self._disconnect(error)
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await wire.exchange(group)
        except TimeoutError:
            for request in group:
                fail(request.waiter, OutcomeUnknown(timed_out=True))
            self._disconnect(TimeoutError(f"no reply within {self._timeout_seconds:g} s"))
        else:
            self._outage.recovered()

    def _disconnect(self, error: Exception) -> None:
        """Fail all waiting requests at once, so that no caller queues behind a server that does not answer."""
        self._outage.failed(error)
        self._drop()
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            fail(self._waiting.popleft().waiter, NotSent())
        for waiter in self._take_idle_waiters():
            fail(waiter, NotSent())

    def _take_idle_waiters(self) -> list[asyncio.Future[None]]:
        waiters, self._idle_waiters = self._idle_waiters, []
        return waiters

    def _next_group(self) -> list[Request]:
        """The requests of the next pipeline. Requests whose caller went away are left out."""
        group, size = list[Request](), 0
        while self._waiting and len(group) < self._requests_max:
            request = self._waiting[0]
            if request.waiter.done():
                self._waiting.popleft()
                continue
            size += request.size
            if group and size > self._bytes_max:
                break
            group.append(self._waiting.popleft())
        return group

    async def _connected(self) -> RedisProtocol:
        if self._wire is not None and not self._wire.lost.done():
            return self._wire
        self._drop()
        self._wire = await open_connection(self._address)
        try:
            await log_in(self._wire, self._address, self._on_connect)
        except BaseException:
            self._drop()
            raise
        return self._wire

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.transport.abort()
            self._wire = None
