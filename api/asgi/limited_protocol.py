"""How the API reads: uvicorn's protocol with limits of bytes and time for all that no route sees."""

import asyncio
import math
from enum import IntEnum, auto
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.asgi.access_log import ACCESS_LOG
from api.asgi.connection_limits import Connections
from api.asgi.cors import CrossOrigin
from api.asgi.limited_transport import LimitedTransport
from api.asgi.problems import RawHeaders
from api.asgi.reader_pace import ReaderPace
from api.asgi.refusal import Refusal, RefusedHead
from api.connection_state import BODY_ARRIVED, LEFT
from api.errors import HeadersTooLarge, MalformedRequest, RequestTimeout, TooManyConnections, UrlTooLong
from jobs.errors import DarkroomError

Bytes = bytes | memoryview

_READ_AHEAD_BYTES_MAX = 512 << 10  # of one connection
_BODY_PIECES = 2000  # of chunked bodies, parsed between two turns of the event loop: 2 ms
_LENGTH_DIGITS_MAX = 18
_DROPPED_BYTES_MAX = 1 << 20  # of a refused client, so that one which sends a little more than it may can read why
_PARSED_BYTES = 16 << 10  # in one go: some thousand headers take 3 ms
_LAST_WORDS_SECONDS = 2  # for the client to read why its connection ends: closed at once, it would lose the response


class _Reads(IntEnum):
    """What a connection reads, or has read last."""

    NOTHING = auto()
    HEAD = auto()
    """Or bytes that begin no request."""
    BODY = auto()
    REST_OF_BODY = auto()
    """Which nobody reads: the response has been sent."""
    REQUEST = auto()
    """A whole one."""
    TO_NOWHERE = auto()
    """What still arrives is dropped: the client is told why, or the last response ends."""


# Looking a member up in its class takes as long as the rest of a callback.
_NOTHING, _HEAD, _BODY, _REST_OF_BODY, _REQUEST, _TO_NOWHERE = _Reads


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Its limits of time are looked at by `Connections`, once a second."""

    transport: LimitedTransport

    def __init__(self, connections: Connections, cross_origin: CrossOrigin, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._all_connections = connections
        self.cross_origin = cross_origin
        self._limits = connections.limits
        self._head_bytes_max = self._limits.url_bytes_max + self._limits.headers_bytes_max
        self._reads = _NOTHING
        self._since = 0.0  # when it began to read that
        self._unparsed_bytes = 0  # since a head, a piece of a body, or a request was complete
        self._body_bytes = 0
        self._body_pieces = 0
        self._last_headers: RawHeaders | None = None  # of the last head that was complete
        self._refusal: Refusal | None = None  # which is not sent yet
        self._held = b""  # received, and parsed once others have had their turn
        self._reader: ReaderPace
        self.url = b""  # uvicorn sets it with the first byte of a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(transport)
        self._since = self.loop.time()
        self._reader = ReaderPace(self.transport, self._limits)
        if not self._all_connections.add(self, self.client[0] if self.client else None, self.loop):
            self._refuse(TooManyConnections(), b"")
            if not self._all_connections.may_stay:
                self._send_refusal()
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all_connections.remove(self)
        self._held = b""
        if not self.is_idle():
            self._mark_as_left()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's closes, whatever is due
        """The client sends nothing more, and may still read: what it has asked for whole is answered without a wait."""
        self._send_refusal()
        if self._reads is _BODY or self.is_idle():
            return False
        self.cycle.keep_alive = False
        self._mark_as_left()
        return True

    def _mark_as_left(self) -> None:
        self.cycle.scope["extensions"][LEFT] = {}
        self.cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._reads is _REQUEST or self._reads is _NOTHING:
            self._reads, self._since = _HEAD, self.loop.time()
        elif self._reads is _TO_NOWHERE:
            self._drop(data)
            return
        if self._held:
            self._held += data
        elif len(data) <= _PARSED_BYTES:
            self._parse(data)
        else:
            self._parse_in_pieces(data)

    def parse_again(self, data: Bytes, at: int) -> None:
        """The parser has stopped within the data, behind a head that offers an upgrade."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Whether no response is due."""
        return self.cycle is None or self.cycle.response_complete

    def _parse(self, data: Bytes) -> None:
        self._unparsed_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                self.parse_again(data, stopped.args[0])
        except httptools.HttpParserError as error:  # uvicorn's warning is not bounded in rate, the access log's line is
            self._refuse(
                error.__context__ if isinstance(error.__context__, DarkroomError) else MalformedRequest(), data
            )
            return
        if self._reads is _REQUEST and self.headers is not self._last_headers:
            self._reads, self._since = _HEAD, self.loop.time()  # one that stands behind another request
        if self._reads is _HEAD and self.headers is not None and (refusal := self._head_refusal()) is not None:
            self._refuse(refusal, data)
        elif self._unparsed_bytes > self._head_bytes_max:
            self._refuse(self._headers_too_large(), data)

    def _parse_in_pieces(self, data: bytes) -> None:
        """Gives the event loop a turn if many small pieces of a body, or many requests, stand in the data."""
        at, view = 0, memoryview(data)
        while at < len(data) and self._reads is not _TO_NOWHERE:
            if self._pipeline_is_full() or self._body_pieces > _BODY_PIECES:
                self._hold(data[at:])
                return
            size = max(_PARSED_BYTES, self._body_bytes_left())
            self._parse(view[at : at + size])
            at += size
        if self._reads is _TO_NOWHERE:
            self._drop(view[at:])

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.transport.hold()
        if not self._pipeline_is_full():
            self.loop.call_soon(self._parse_held)

    def _pipeline_is_full(self) -> bool:
        return len(self.pipeline) >= self._limits.pipelined_max

    def _parse_held(self) -> None:
        self._unset_keepalive_if_required()
        self._body_pieces = 0
        data, self._held = self._held, b""
        if self.parser is not None:  # else the connection has ended
            self._parse_in_pieces(data)
            if not self._held:
                self.transport.release(reads=not self.flow.read_paused)

    def _body_bytes_left(self) -> int:
        """How many bytes of the data belong to a body for certain: it is parsed in one go."""
        if self._reads is not _BODY:
            return 0
        for name, value in self.headers:
            if name == b"content-length":
                return int(value[:_LENGTH_DIGITS_MAX]) - self._body_bytes
        return 0

    def _drop(self, data: Bytes) -> None:
        self._unparsed_bytes += len(data)
        is_enough = self._unparsed_bytes > _DROPPED_BYTES_MAX
        if self._refusal is not None and (self._refusal.head_ends_in(data) or is_enough):
            self._send_refusal()
        if is_enough:
            self.transport.pause_reading()

    def look(self, now: float) -> None:
        """Called each second."""
        if not self._reader.keeps_up(now):
            self.transport.abort()
        elif self._reads is _TO_NOWHERE:
            if now - self._since > _LAST_WORDS_SECONDS and not self._send_refusal():
                self.transport.abort()
        elif self.is_idle() and not self.transport.is_closing():
            if self._reads is _BODY:
                self._reads, self._since = _REST_OF_BODY, now
            self._end_if_overdue(now - self._since)

    def _end_if_overdue(self, seconds: float) -> None:
        limits = self._limits
        if self._reads is _NOTHING:
            if seconds > limits.first_byte_seconds_max:
                self.transport.close()
        elif seconds > limits.head_seconds_max and self.timeout_keep_alive_task is None:
            if self._reads is _HEAD and self.headers is not self._last_headers:
                self._refuse(RequestTimeout(f"Sending a head may take at most {limits.head_seconds_max:g} seconds."))
            else:
                self.transport.close()  # it sends bytes of no request, or the rest of a body

    def _head_refusal(self) -> DarkroomError | None:
        limits = self._limits
        if len(self.url) > limits.url_bytes_max:
            return UrlTooLong(f"A URL may have at most {limits.url_bytes_max} bytes.")
        if len(self.headers) > limits.headers_max:
            return self._headers_too_large()
        # The bytes that were read bound the sum, which few requests need.
        if self._unparsed_bytes > limits.headers_bytes_max and (
            sum(len(name) + len(value) for name, value in self.headers) > limits.headers_bytes_max
        ):
            return self._headers_too_large()
        return None

    def _headers_too_large(self) -> DarkroomError:
        limits = self._limits
        return HeadersTooLarge(
            f"A request may have at most {limits.headers_max} headers of {limits.headers_bytes_max} bytes together."
        )

    def _refuse(self, error: DarkroomError, data: Bytes | None = None) -> None:
        """End the connection: with a response that says why, if none has begun.

        `data` has come last. If the response depends on a head which is not complete, it is sent at the head's end.
        """
        self._unset_keepalive_if_required()
        began, reads_body = self._since, self._reads is _BODY
        self._reads, self._since = _TO_NOWHERE, self.loop.time()
        if self.pipeline or not (self.is_idle() or reads_body):
            self._since = math.inf  # the responses before it come first
            self.cycle.keep_alive = False
        elif not self.is_idle() and self.cycle.response_started:
            self.transport.abort()
        elif not self.transport.is_closing():
            if not self.is_idle():  # what the route answers to half a body would be too late
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            method = self.parser.get_method() if self.url else b"-"  # before a URL, the parser's is not the client's
            head = RefusedHead(method, self.url, self.headers or [], began)
            self._refusal = Refusal(error, head, self.cross_origin)
            if data is None or self._head_is_complete() or self._refusal.head_ends_in(data):
                self._send_refusal()

    def _head_is_complete(self) -> bool:
        return self.headers is self._last_headers and self.headers is not None

    def _send_refusal(self) -> bool:
        """Returns False if there is none that is not sent."""
        refusal, self._refusal = self._refusal, None
        if refusal is None or self.transport.is_closing():
            return False
        default_headers, self._since = self.server_state.default_headers, self.loop.time()
        self.transport.write(refusal.response(default_headers, self._limits.retry_after_seconds))
        self.transport.write_eof()
        if ACCESS_LOG in self.app_state:
            refusal.write_line(self.app_state[ACCESS_LOG], self._since)
        return True

    # The callbacks below run for each request: `super()` in them would cost 0.8 µs of it.

    def on_headers_complete(self) -> None:
        limits, self._last_headers = self._limits, self.headers
        may_be_too_large = self._unparsed_bytes > limits.url_bytes_max or len(self.headers) > limits.headers_max
        if may_be_too_large and (refusal := self._head_refusal()) is not None:
            raise refusal
        self._reads, self._unparsed_bytes, self._body_bytes = _BODY, 0, 0
        HttpToolsProtocol.on_headers_complete(self)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        self._body_pieces += 1
        HttpToolsProtocol.on_body(self, body)
        if self.flow.read_paused and len(self.cycle.body) <= _READ_AHEAD_BYTES_MAX:
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        self._reads, self._unparsed_bytes = _REQUEST, 0
        self.scope["extensions"][BODY_ARRIVED] = {}
        HttpToolsProtocol.on_message_complete(self)

    def on_response_complete(self) -> None:
        HttpToolsProtocol.on_response_complete(self)
        if self._held and not self._pipeline_is_full():
            self.loop.call_soon(self._parse_held)
