"""A request body, read piece by piece within limits of size and time."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request
from starlette.types import Message

from api.connection_state import BODY_ARRIVED
from api.errors import UnsupportedMediaType, UploadTimeout
from api.settings import ApiSettings
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.store.for_api.upload_budget import UploadBudget

_LENGTH_DIGITS_MAX = 18


class Body:
    """One request's body. Bytes that are buffered in memory count against the upload budget until `close`."""

    def __init__(self, request: Request, upload_budget: UploadBudget, settings: ApiSettings, owner: str) -> None:
        self.headers = request.headers
        self._request = request
        self._extensions = request.scope.get("extensions", {})
        self._upload_budget = upload_budget
        self.owner = owner
        self._idle_seconds_max = settings.upload_idle_seconds_max
        self._bytes_per_second_min = settings.upload_bytes_per_second_min
        self._waited_seconds = 0.0  # for the client, since its pace was judged
        self._waited_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._size = 0
        self.buffered_bytes = 0
        self._limit_seconds = self._deadline = math.inf

    async def pieces(self, bytes_max: int) -> AsyncGenerator[bytes]:
        """The body as the server receives it, without buffering.

        Raises:
            UploadTooLarge: the body has, or its Content-Length announces, more than `bytes_max` bytes.
            UnsupportedMediaType: it has a Content-Encoding.
            UploadTimeout: no data arrived for too long, or it arrived too slowly.
            InvalidRequest: the client disconnected before the end.
        """
        self._check_headers(bytes_max)
        more = True
        while more:
            piece, more = await self._receive()
            self._size += len(piece)
            if self._size > bytes_max:
                raise UploadTooLarge(f"The body may have at most {bytes_max} bytes.")
            if piece:
                yield piece

    async def read_all(self, bytes_max: int) -> bytes:
        """The whole body, buffered in memory. Most bodies of one image arrive in one piece.

        Raises:
            As `pieces` and `buffered`.
        """
        self._check_headers(bytes_max)
        pieces, more = list[bytes](), True
        while more:
            piece, more = await self._receive()
            self._count_buffered(piece, bytes_max)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def buffered(self, bytes_max: int, pieces: AsyncIterator[bytes] | None = None) -> AsyncGenerator[bytes]:
        """The pieces of a body that its reader buffers in memory; by default, `pieces(bytes_max)`.

        Raises:
            QueueFull: the upload budget, or the owner's share of it, is used up.
            And as `pieces` does.
        """
        async for piece in self.pieces(bytes_max) if pieces is None else pieces:
            self._count_buffered(piece, bytes_max)
            yield piece

    def set_deadline(self, seconds: float) -> None:
        """Require the rest of the body to arrive within `seconds` from now."""
        self._limit_seconds = seconds
        self._deadline = self._loop.time() + seconds

    def close(self) -> None:
        """Stop counting the buffered bytes: they were dropped, or from now on another component counts them."""
        if self.buffered_bytes:
            self._upload_budget.release(self.buffered_bytes, self.owner)
            self.buffered_bytes = 0

    async def _receive(self) -> tuple[bytes, bool]:
        """The next piece, and whether more follow."""
        if BODY_ARRIVED in self._extensions:  # a timer costs more than all else here
            return _piece(await self._request.receive())
        began = self._loop.time()
        left = self._deadline - began
        try:
            async with asyncio.timeout(min(left, self._idle_seconds_max)):
                message = await self._request.receive()
        except TimeoutError:
            if left < self._idle_seconds_max:
                raise UploadTimeout(f"Sending an image may take at most {self._limit_seconds:g} seconds.") from None
            raise UploadTimeout(f"No data arrived for {self._idle_seconds_max:g} seconds.") from None
        piece, more = _piece(message)
        if more:
            self._check_pace(len(piece), self._loop.time() - began)
        return piece, more

    def _check_pace(self, size: int, seconds: float) -> None:
        """Raises UploadTimeout if the client has been too slow. Time in which nobody waits for it does not count."""
        self._waited_bytes += size
        self._waited_seconds += seconds
        if self._waited_seconds > self._idle_seconds_max:
            if self._waited_bytes < self._bytes_per_second_min * self._waited_seconds:
                raise UploadTimeout(f"An upload must bring at least {self._bytes_per_second_min} bytes a second.")
            self._waited_seconds, self._waited_bytes = 0.0, 0

    def _check_headers(self, bytes_max: int) -> None:
        announced = self.headers.get("content-length", "0")  # uvicorn admits digits only, but any number of them
        if len(announced) > _LENGTH_DIGITS_MAX or int(announced) > bytes_max:
            raise UploadTooLarge(f"The body may have at most {bytes_max} bytes; its Content-Length is larger.")
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise UnsupportedMediaType(
                f"The Content-Encoding {encoding[:20]!r} is not decoded: send the body as it is."
            )

    def _count_buffered(self, piece: bytes, bytes_max: int) -> None:
        self.buffered_bytes += len(piece)
        self._upload_budget.reserve(len(piece), self.owner)
        if self.buffered_bytes > bytes_max:
            raise UploadTooLarge(f"The body may have at most {bytes_max} bytes.")


def _piece(message: Message) -> tuple[bytes, bool]:
    """The bytes of a message, and whether more follow."""
    if message["type"] == "http.disconnect":
        raise InvalidRequest("The body was cut off: send it again.")
    return message.get("body", b""), message.get("more_body", False)
