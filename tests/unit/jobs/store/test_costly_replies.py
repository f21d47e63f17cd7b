"""No reply of Redis keeps the event loop to itself, and none is read anew with each piece of it."""

import asyncio

import pytest

from jobs.store.for_api.redis_connection import RedisProtocol, Request
from tests.support.stretches import check_stretches

RECEIVED_BYTES = 256 << 10  # by one call of the event loop

REPLIES = {
    "5,000 numbers": (5000, b":1\r\n" * 5000),
    "5,000 errors": (5000, b"-ERR no\r\n" * 5000),
    "an array of 200,000 numbers": (1, b"*200000\r\n" + b":1\r\n" * 200_000),
    "an array of 100,000 empty strings": (1, b"*100000\r\n" + b"$0\r\n\r\n" * 100_000),
    "a map of 50,000 pairs": (1, b"%50000\r\n" + b"".join(b":%d\r\n:1\r\n" % n for n in range(50_000))),
    "a string of 16 MiB": (1, b"$16777216\r\n" + bytes(16 << 20) + b"\r\n"),
    "a line of 1 MiB": (1, b"+" + b"a" * (1 << 20) + b"\r\n"),
}
"""The number of commands that they answer, more than a pipeline ever has in flight, and the bytes."""


class _Sink(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


async def _receive(commands: int, data: bytes) -> None:
    protocol, loop = RedisProtocol(), asyncio.get_running_loop()
    protocol.connection_made(_Sink())
    request = Request([b"*1\r\n$4\r\nPING\r\n"] * commands, loop.create_future())
    exchange = asyncio.create_task(protocol.exchange([request]))
    await asyncio.sleep(0)
    for at in range(0, len(data), RECEIVED_BYTES):
        protocol.data_received(data[at : at + RECEIVED_BYTES])
        await asyncio.sleep(0)
    await exchange
    assert len(await request.waiter) == commands


@pytest.mark.parametrize("name", REPLIES)
async def test_no_reply_keeps_the_event_loop_to_itself(name: str) -> None:
    commands, data = REPLIES[name]
    await check_stretches(lambda: _receive(commands, data))
