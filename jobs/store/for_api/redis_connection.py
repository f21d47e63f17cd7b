"""One open connection to Redis: its bytes, matched to the requests in flight."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, cast

import hiredis

from jobs.store.redis_url import RedisAddress
from jobs.store.wire import Command, Reply, pack

Execute = Callable[..., Awaitable[list[Reply]]]
OnConnect = Callable[[Execute], Awaitable[None]]


class NotSent(Exception):
    """The server could not be reached; the commands were not sent."""


class OutcomeUnknown(Exception):
    """The commands were sent, and no reply arrived."""

    def __init__(self, *, timed_out: bool = False) -> None:
        super().__init__()
        self.timed_out = timed_out
        """Whether the server hangs, so that callers behind this one should not wait for it."""


class Request:
    """Commands of one caller."""

    __slots__ = ("commands", "data", "replies", "size", "waiter")

    def __init__(self, commands: Sequence[Command | bytes], waiter: asyncio.Future[list[Reply]]) -> None:
        self.commands = len(commands)
        self.data = list(map(pack, commands))  # joined once, when the whole pipeline is known
        self.size = sum(map(len, self.data))
        self.waiter = waiter
        self.replies = list[Reply]()


class RedisProtocol(asyncio.Protocol):
    """The bytes of one open connection, matched to the requests in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.lost = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._in_flight = deque[Request]()
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
            fail(self._in_flight.popleft().waiter, OutcomeUnknown())
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    @property
    def is_busy(self) -> bool:
        """Whether replies are outstanding."""
        return bool(self._in_flight)

    async def exchange(self, requests: list[Request]) -> None:
        """Send the requests and return once all are answered or the connection is lost."""
        self._idle = asyncio.get_running_loop().create_future()
        self._in_flight.extend(requests)
        self.transport.write(b"".join(chain.from_iterable(request.data for request in requests)))
        await self._idle


async def open_connection(address: RedisAddress) -> RedisProtocol:
    """An open connection that is not logged in yet."""
    loop = asyncio.get_running_loop()
    if address.unix_socket is not None:
        _, protocol = await loop.create_unix_connection(RedisProtocol, address.unix_socket)
    else:
        _, protocol = await loop.create_connection(RedisProtocol, address.host, address.port, ssl=address.tls)
    return protocol


async def log_in(protocol: RedisProtocol, address: RedisAddress, on_connect: OnConnect | None) -> None:
    """Log in to the server and choose the database; then call `on_connect` with a function that runs commands.

    Raises:
        hiredis.ReplyError: the server refuses a command.
        OutcomeUnknown: the connection was lost.
    """

    async def execute(*commands: Command) -> list[Reply]:
        request = Request(commands, asyncio.get_running_loop().create_future())
        await protocol.exchange([request])
        replies = await request.waiter
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies

    login_commands = list[Command]()
    if address.password is not None:
        login_commands.append(("AUTH", address.username, address.password))
    if address.database:
        login_commands.append(("SELECT", address.database))
    if login_commands:
        await execute(*login_commands)
    if on_connect is not None:
        await on_connect(execute)


def fail(waiter: asyncio.Future[Any], error: Exception) -> None:
    """Give the waiter this error, unless it has a result."""
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # marks it as retrieved: asyncio would complain if the caller went away
