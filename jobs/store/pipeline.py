"""One asyncio connection to Redis whose concurrent callers share round trips.

Commands that arrive while a pipeline is in flight join the next one: one write, one read and, with
`appendfsync always`, one fsync serve many callers. A lone caller does not wait. redis-py's own pipelines cost 40 to
90 µs of CPU a submit here, this class 4 to 15 µs (docs/decisions/0003-own-redis-pipeline.md).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, cast

import hiredis

from jobs.outage_log import OutageLog
from jobs.store.redis_url import RedisAddress
from jobs.store.wire import Command, Reply, pack

log = logging.getLogger(__name__)


class NotSent(Exception):
    """The server could not be reached; the commands were not sent."""


class OutcomeUnknown(Exception):
    """The commands were sent, and no reply arrived."""

    def __init__(self, *, timed_out: bool = False) -> None:
        super().__init__()
        self.timed_out = timed_out
        """Whether the server hangs, so that callers behind this one should not wait for it."""


class _Request:
    """Commands of one caller."""

    __slots__ = ("commands", "data", "replies", "size", "waiter")

    def __init__(self, commands: Sequence[Command | bytes], waiter: asyncio.Future[list[Reply]]) -> None:
        self.commands = len(commands)
        self.data = list(map(pack, commands))  # joined once, when the whole pipeline is known
        self.size = sum(map(len, self.data))
        self.waiter = waiter
        self.replies = list[Reply]()


class _RedisProtocol(asyncio.Protocol):
    """The bytes of one open connection, matched to the requests in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.lost = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._in_flight = deque[_Request]()
        self._idle: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transport does not subclass asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            request = self._in_flight[0]
            request.replies.append(reply)
            if len(request.replies) == request.commands:
                self._in_flight.popleft()
                if not request.waiter.done():
                    request.waiter.set_result(request.replies)
        if not self._in_flight and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        while self._in_flight:
            _fail(self._in_flight.popleft().waiter, OutcomeUnknown())
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    @property
    def is_busy(self) -> bool:
        """Whether replies are outstanding."""
        return bool(self._in_flight)

    async def exchange(self, requests: list[_Request]) -> None:
        """Send the requests and return once all are answered or the connection is lost."""
        self._idle = asyncio.get_running_loop().create_future()
        self._in_flight.extend(requests)
        self.transport.write(b"".join(chain.from_iterable(request.data for request in requests)))
        await self._idle


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
        on_connect: Callable[[Callable[..., Awaitable[list[Reply]]]], Awaitable[None]] | None = None,
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._requests_max = group_requests_max
        self._bytes_max = group_bytes_max
        self._on_connect = on_connect
        self._waiting = deque[_Request]()
        self._idle_waiters = list[asyncio.Future[None]]()
        self._arrived = asyncio.Event()
        self._wire: _RedisProtocol | None = None
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
        self._waiting.append(_Request(commands, waiter))
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
                    _fail(request.waiter, OutcomeUnknown())
            if self._idle_waiters:
                for waiter in self._take_idle_waiters():
                    if not waiter.done():
                        waiter.set_result(None)
                await asyncio.sleep(0)  # they send before the next pipeline is put together

    async def _run_group(self, group: list[_Request]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                wire = await self._connected()
        except (OSError, TimeoutError, hiredis.HiredisError, OutcomeUnknown) as error:
            for request in group:
                _fail(request.waiter, NotSent())
            self._disconnect(error)
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await wire.exchange(group)
        except TimeoutError:
            for request in group:
                _fail(request.waiter, OutcomeUnknown(timed_out=True))
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
            _fail(self._waiting.popleft().waiter, NotSent())
        for waiter in self._take_idle_waiters():
            _fail(waiter, NotSent())

    def _take_idle_waiters(self) -> list[asyncio.Future[None]]:
        waiters, self._idle_waiters = self._idle_waiters, []
        return waiters

    def _next_group(self) -> list[_Request]:
        """The requests of the next pipeline. Requests whose caller went away are left out."""
        group, size = list[_Request](), 0
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

    async def _connected(self) -> _RedisProtocol:
        if self._wire is not None and not self._wire.lost.done():
            return self._wire
        self._drop()
        wire, login_commands = await _open(self._address)
        self._wire = wire

        async def execute(*commands: Command) -> list[Reply]:
            request = _Request(commands, asyncio.get_running_loop().create_future())
            await wire.exchange([request])
            replies = await request.waiter
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
            return replies

        try:
            if login_commands:
                await execute(*login_commands)
            if self._on_connect is not None:
                await self._on_connect(execute)
        except BaseException:
            self._drop()
            raise
        return wire

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.transport.abort()
            self._wire = None


def _fail(waiter: asyncio.Future[Any], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # marks it as retrieved: asyncio would complain if the caller went away


async def _open(address: RedisAddress) -> tuple[_RedisProtocol, list[Command]]:
    """An open connection, and the commands that log in to it."""
    loop = asyncio.get_running_loop()
    if address.unix_socket is not None:
        _, wire = await loop.create_unix_connection(_RedisProtocol, address.unix_socket)
    else:
        _, wire = await loop.create_connection(_RedisProtocol, address.host, address.port, ssl=address.tls)
    login_commands = list[Command]()
    if address.password is not None:
        login_commands.append(("AUTH", address.username, address.password))
    if address.database:
        login_commands.append(("SELECT", address.database))
    return wire, login_commands
