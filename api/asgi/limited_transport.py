"""The transport that the API's protocol writes to."""

import asyncio
from typing import Any, Protocol


class CountingTransport(Protocol):
    """A transport that counts what is written to it."""

    written_bytes: int

    def get_write_buffer_size(self) -> int: ...

    def get_extra_info(self, name: str) -> Any: ...


class LimitedTransport(asyncio.Transport, CountingTransport):
    """What the protocol writes to."""

    def hold(self) -> None:
        """Read nothing until `release`, whatever is asked for."""

    def release(self, *, reads: bool) -> None:
        """End `hold`, and read again if it `reads`."""
