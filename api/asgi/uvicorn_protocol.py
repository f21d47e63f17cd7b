"""uvicorn's HTTP protocol, changed to send each response in one write.

uvicorn writes the head and the body of a response separately, and uvloop sends each at once: two system calls, two
packets and two wake-ups of the client (docs/decisions/0022-one-write-per-response.md).
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_COALESCED_BYTES_MAX = 64 << 10  # copying a larger piece costs more than a system call


class SingleWriteProtocol(HttpToolsProtocol):
    """The `http` argument of `uvicorn.run`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(cast("asyncio.Transport", _CoalescingTransport(transport, self.loop)))


class _CoalescingTransport:
    """Delays a write until the next one, or until the end of the event loop's current iteration, and joins the two."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
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

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, b""
            if not self._transport.is_closing():  # the client may have disconnected since
                self._transport.write(pending)
