"""HTTP on the wire: uvicorn's protocol, whose answers leave in one piece.

uvicorn writes the head and the body of an answer one after the other, and uvloop sends each at once: two system calls,
two packets and two wake-ups of the client (docs/decisions/0022-one-write-an-answer.md).
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_JOINED_BYTES_MAX = 64 << 10  # larger pieces are not copied for the sake of one call


class SingleWriteProtocol(HttpToolsProtocol):
    """What `uvicorn.run` is given as `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast("asyncio.Transport", _CoalescingTransport(transport, self.loop)))


class _CoalescingTransport:
    """A transport that holds a piece back for the next one, until the end of this turn of the loop at the latest."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._held:
            followed_streams, self._held = self._held, b""
            if len(data) <= _JOINED_BYTES_MAX:
                self._transport.write(followed_streams + data)
                return
            self._transport.write(followed_streams)
        elif len(data) <= _JOINED_BYTES_MAX:
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            followed_streams, self._held = self._held, b""
            if not self._transport.is_closing():  # the client may have gone since
                self._transport.write(followed_streams)
