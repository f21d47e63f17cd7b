"""One asyncio connection to Redis whose concurrent callers share round trips.

Commands that arrive while a pipeline is in flight join the next one: one write, one read and, with
`appendfsync always`, one fsync serve many callers, and a lone caller waits for nobody. redis-py's own pipelines
cost 40 to 90 µs of CPU a submit here, this 4 to 15 (docs/decisions/0003-own-pipeline.md).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Protocol, cast

import hiredis

from jobs.outage_log import OutageLog
from jobs.store.redis_url import RedisAddress
from jobs.store.wire import Command, Reply, pack

log = logging.getLogger(__name__)


class NotSent(Exception):
    """The server could not be reached; nothing was sent."""


class OutcomeUnknown(Exception):
    """The commands were sent, and no answer came."""


class Batch(Protocol):
    """Commands that are not settled before they are sent: until then, more callers may join in."""

    def callers(self) -> int:
        """How many there are by now."""

    def commands(self) -> Sequence[Command]:
        """Called once, when they are sent. None where everybody went away."""


class _Request:
    __slots__ = ("batch", "data", "replies", "size", "waiter", "wanted")

    def __init__(
        self, commands: Sequence[Command | bytes], waiter: asyncio.Future[list[Reply]], batch: Batch | None = None
    ) -> None:
        self._take(commands)
        self.waiter = waiter
        self.batch = batch
        self.replies = list[Reply]()

    def settle(self) -> None:
        """What is sent stands from here on."""
        if self.batch is None or self.wanted or self.waiter.done():
            return
        try:
            self._take(self.batch.commands())
        except Exception as error:  # the batch's callers learn of it, and others are not held up
            self.waiter.set_exception(error)
            return
        if not self.wanted:
            self.waiter.set_result([])

    def _take(self, commands: Sequence[Command | bytes]) -> None:
        self.data = list(map(pack, commands))  # joined once, when all that is sent is known
        self.size = sum(map(len, self.data))
        self.wanted = len(commands)


class _RedisProtocol(asyncio.Protocol):
    """The bytes of one open connection, matched to the requests in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.lost = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._in_flight = deque[_Request]()
        self._idle: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            request = self._in_flight[0]
            request.replies.append(reply)
            if len(request.replies) == request.wanted:
                self._in_flight.popleft()
                if not request.waiter.done():
                    request.waiter.set_result(request.replies)
        if not self._in_flight and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        while self._in_flight:
            _fail(self._in_flight.popleft(), OutcomeUnknown())
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def exchange(self, requests: list[_Request]) -> None:
        """Send the requests and return once all are answered or the connection is lost."""
        self._idle = asyncio.get_running_loop().create_future()
        self._in_flight.extend(requests)
        self.transport.write(b"".join(chain.from_iterable(request.data for request in requests)))
        await self._idle


class PipelinedConnection:
    """Runs commands; see the module's text for how callers are grouped.

    `on_connect` is called with `execute` on each new connection, before anybody else's commands.
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
        self._arrived = asyncio.Event()
        self._wire: _RedisProtocol | None = None
        self._task: asyncio.Task[None] | None = None
        self._outage = OutageLog("job store: waiting for Redis")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="group connection")

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
        """Run the commands in order, beside those of other callers.

        Returns one reply a command; an error reply of the server is returned as `hiredis.ReplyError`.

        Raises:
            NotSent: nothing was sent.
            OutcomeUnknown: it was sent, and whether it ran is not known.
        """
        return await self._enqueue(commands)

    async def execute_batch(self, batch: Batch) -> list[Reply]:
        """`execute`, for what is still growing until it is sent."""
        return await self._enqueue((), batch)

    def _enqueue(self, commands: Sequence[Command | bytes], batch: Batch | None = None) -> asyncio.Future[list[Reply]]:
        waiter: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(commands, waiter, batch))
        self._arrived.set()
        return waiter

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
                log.exception("a group of commands failed; the connection is opened anew")
                self._drop()
            finally:
                for request in group:  # nobody waits for ever, whatever went wrong
                    _fail(request, OutcomeUnknown())

    async def _run_group(self, group: list[_Request]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                wire = await self._connected()
        except (OSError, TimeoutError, hiredis.HiredisError, OutcomeUnknown) as error:
            for request in group:
                _fail(request, NotSent())
            self._disconnect(error)
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await wire.exchange(group)
        except TimeoutError:
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
            _fail(self._waiting.popleft(), NotSent())

    def _next_group(self) -> list[_Request]:
        """What goes into the next pipeline: callers that went away are left out."""
        group, size, callers = list[_Request](), 0, 0
        while self._waiting:
            request = self._waiting[0]
            callers += request.batch.callers() if request.batch is not None else 1
            if group and callers > self._requests_max:
                break
            request.settle()
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


def _fail(request: _Request, error: Exception) -> None:
    if not request.waiter.done():
        request.waiter.set_exception(error)
        request.waiter.exception()  # it is seen: a caller that went away is no reason for asyncio to complain


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
