"""uvicorn's HTTP protocol, changed in nine points.

- Each response leaves in one write. uvicorn writes head and body separately, and uvloop sends each at once: two system
  calls, two packets and two wake-ups of the client (docs/decisions/0022-one-write-per-response.md).
- An upgrade that is not taken is ignored, and the request is answered in HTTP/1.1 (RFC 9110, 7.8). Java's HTTP client
  offers h2c with every request; uvicorn's parser stops behind the head of such a request and loses its body.
- A client that shuts its sending side is answered; uvicorn closes the connection, and the job is accepted nevertheless.
- HTTP/1.0 gets no chunks: a response without a length ends with its connection.
- Large bodies arrive in large pieces (`LimitedProtocol`). uvicorn stops reading as soon as 64 KiB of a body wait for
  the application, which is then woken for each such piece.
- A response that cannot be completed breaks its connection (`cut_off`), without an error in the log.
- A process that stops keeps its idle connections for a moment, answers a request that comes on one of them, and says
  `Connection: close`. uvicorn closes them at once: a request that is on its way is lost, and a proxy that pools
  connections must not send it again unless it is a GET.
- What comes before a body is limited in bytes and in time, and so is the patience with who does not read a response
  (`api/asgi/connection_limits.py`, docs/decisions/0051-limits-of-a-connection.md). uvicorn has no such limits.
- Each response says which pages of other origins may read it (`api/asgi/cors.py`), uvicorn's own included.
"""

import asyncio
from functools import partial
from typing import Any, cast
from weakref import ref

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.asgi.connection_limits import ConnectionLimits, Connections
from api.asgi.cors import CrossOrigin
from api.asgi.limited_protocol import Bytes, LimitedProtocol
from api.settings import ApiSettings

_COALESCED_BYTES_MAX = 64 << 10  # copying a larger piece costs more than a system call
_CUT_OFF = "darkroom.cut_off"
_UPGRADE_HEADERS = (b"upgrade", b"http2-settings")
_STOP_IDLE_SECONDS = 1.5  # longer than the edge keeps an idle connection: deploy/edge/Caddyfile


def cut_off(scope: Scope) -> None:
    """Break the connection of a response whose head is sent: what follows of it is dropped, its end included."""
    scope["extensions"][_CUT_OFF]()


def protocol_factory(settings: ApiSettings) -> type[asyncio.Protocol]:
    """The `http` argument of uvicorn, which calls it once for each connection."""
    connections, cross_origin = Connections(ConnectionLimits.of(settings)), CrossOrigin(settings.cors_origins)
    factory = partial(DarkroomProtocol, connections, cross_origin)
    return cast("type[asyncio.Protocol]", factory)


class DarkroomProtocol(LimitedProtocol):
    """One connection."""

    _stops = False  # the process stops: this connection takes one more request at most

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(cast("asyncio.Transport", _CoalescingTransport(transport, self.loop)))

    def parse_again(self, data: Bytes, at: int) -> None:
        while True:
            data = self._head_without_upgrade() + data[at:]
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                at = stopped.args[0]

    def on_headers_complete(self) -> None:
        if not self._stops_for_upgrade():
            LimitedProtocol.on_headers_complete(self)
            # The cycle has the scope: a strong reference back would leave each request to the garbage collector.
            extensions: dict[str, Any] = {_CUT_OFF: partial(self._cut_off, ref(self.cycle))}
            self.scope["extensions"] = extensions
            if self.cross_origin.is_set:
                own_headers = self.cross_origin.response_headers(self.headers)
                self.cycle.default_headers = [*self.cycle.default_headers, *own_headers]
            if self._stops:
                self.cycle.keep_alive = False  # the response says so
            if self.scope["http_version"] == "1.0":
                _answer_http_1_0(self.cycle)

    def shutdown(self) -> None:
        """Called by uvicorn when the process stops, once it no longer accepts connections."""
        if self.is_idle():
            self._stops = True
            self.loop.call_later(_STOP_IDLE_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if self.is_idle():
            self.transport.close()

    def _cut_off(self, of_scope: "ref[RequestResponseCycle]") -> None:
        if (cycle := of_scope()) is None:
            return
        cycle.disconnected = True
        if cycle.scope["http_version"] == "1.0":
            self.transport.abort()  # closed, it would be complete
        else:
            self.transport.close()

    def on_message_complete(self) -> None:
        if not self._stops_for_upgrade():
            LimitedProtocol.on_message_complete(self)

    def _stops_for_upgrade(self) -> bool:
        """Whether the parser stops behind this head: `data_received` feeds it again, without its offer."""
        stops: bool = self.parser.should_upgrade()
        return stops and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                head += [
                    b"connection: ",
                    b", ".join(it for it in tokens if it.lower() not in _UPGRADE_HEADERS),
                    b"\r\n",
                ]
            elif name not in _UPGRADE_HEADERS:
                head += [name, b": ", value, b"\r\n"]
        return b"".join((*head, b"\r\n"))


def _answer_http_1_0(cycle: RequestResponseCycle) -> None:
    """Change how a cycle sends: without chunks, and without asking for the body (RFC 9110, 10.1.1)."""
    send, has_length = cycle.send, False

    async def send_without_chunks(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            cycle.chunked_encoding = None if has_length else False
        elif not has_length:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.waiting_for_100_continue = False
    cycle.send = send_without_chunks  # type: ignore[method-assign]


class _CoalescingTransport:
    """Delays a write until the next one, or until the end of the event loop's current iteration, and joins the two."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending = b""
        self._holds = False
        self.written_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():  # cut off: the application learns of it a turn of the event loop later
            return
        self.written_bytes += len(data)
        if self._pending:
            pending, self._pending = self._pending, b""
            if len(data) <= _COALESCED_BYTES_MAX:
                self._transport.write(pending + data)
                return
            self._transport.write(pending)
        elif len(data) <= _COALESCED_BYTES_MAX:
            self._pending = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def resume_reading(self) -> None:
        if not self._holds:
            self._transport.resume_reading()

    def hold(self) -> None:
        self._holds = True
        self._transport.pause_reading()

    def release(self, *, reads: bool) -> None:
        self._holds = False
        if reads:
            self._transport.resume_reading()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, b""
            if not self._transport.is_closing():  # the client may have disconnected since
                self._transport.write(pending)
