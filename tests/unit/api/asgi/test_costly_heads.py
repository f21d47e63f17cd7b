"""No client keeps the event loop to itself by what it sends in front of bodies, or as ever smaller pieces of one."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from api.asgi.uvicorn_protocol import protocol_factory
from api.settings import ApiSettings
from tests.support.stretches import check_stretches

RECEIVED_BYTES = 256 << 10  # by one call of the event loop
BYTES = 2 << 20
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /livez HTTP/1.1\r\nHost: a\r\n"

HEADS = {
    "headers without end": GET + b"a:b\r\n" * (BYTES // 5),
    "one header without end": GET + b"a: " + b"b" * BYTES,
    "a URL without end": b"GET /" + b"b" * BYTES,
    "empty lines without end": b"\r\n" * (BYTES // 2),
    "requests without end": (GET + b"\r\n") * (BYTES // 33),
    "requests of 100 headers": (GET + b"".join(b"h%d: v\r\n" % n for n in range(98)) + b"\r\n") * (BYTES // 900),
    "chunks of a byte": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (BYTES // 6) + b"0\r\n\r\n",
    "trailers without end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * (BYTES // 5),
    "offers of an upgrade": (GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n") * (BYTES // 70),
}


class _Transport(asyncio.Transport):
    """A client that reads all that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.written_bytes = 0

    def pause_reading(self) -> None:
        self.reads.clear()

    def resume_reading(self) -> None:
        self.reads.set()

    def is_reading(self) -> bool:
        return self.reads.is_set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written_bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    abort = close

    def write_eof(self) -> None:
        pass


async def _app(_scope: object, receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


SETTINGS = ApiSettings(redis_url="unix:///nowhere")
CONFIG = uvicorn.Config(
    _app, http=cast("type[asyncio.Protocol]", protocol_factory(SETTINGS)), interface="asgi3", log_config=None
)
CONFIG.load()


async def _receive(data: bytes) -> None:
    """As the event loop hands it on: nothing while the protocol does not read, and nothing after it has closed."""
    factory: Callable[..., Any] = protocol_factory(SETTINGS)
    protocol, transport = factory(config=CONFIG, server_state=ServerState(), app_state={}), _Transport()
    protocol.connection_made(transport)
    for at in range(0, len(data), RECEIVED_BYTES):
        protocol.data_received(data[at : at + RECEIVED_BYTES])
        await asyncio.sleep(0)
        if transport.is_closing() or not await _reads(transport):
            break
    protocol.connection_lost(None)
    assert transport.written_bytes or protocol.tasks, "nobody has parsed it"
    await asyncio.gather(*protocol.tasks)


async def _reads(transport: _Transport) -> bool:
    """Whether more may arrive. A refused client is read no more for good."""
    for _ in range(1000):
        if transport.is_reading() or transport.is_closing():
            return transport.is_reading()
        await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("name", HEADS)
async def test_no_head_keeps_the_event_loop_to_itself(name: str) -> None:
    await check_stretches(lambda: _receive(HEADS[name]))
