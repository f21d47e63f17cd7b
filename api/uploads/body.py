"""A request's body as it comes in."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request

from api.errors import UploadTimeout
from api.settings import ApiSettings
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.store.upload_budget import UploadBudget

_LENGTH_DIGITS_MAX = 18


class Body:
    """A request's body as it comes in."""

    def __init__(self, request: Request, upload_budget: UploadBudget, settings: ApiSettings) -> None:
        self.headers = request.headers
        self._request = request
        self._upload_budget = upload_budget
        self._idle_seconds_max = settings.upload_idle_seconds_max
        self._loop = asyncio.get_running_loop()
        self._size = 0
        self._taken = 0
        self._limit_seconds = self._until = math.inf

    async def parts(self, bytes_max: int) -> AsyncGenerator[bytes]:
        """
        Raises:
            UploadTooLarge: it has, or announces, more than `bytes_max`.
            UploadTimeout: nothing came for too long.
            InvalidRequest: it was cut off.
        """
        self._check_announced(bytes_max)
        more = True
        while more:
            part, more = await self._receive()
            self._size += len(part)
            if self._size > bytes_max:
                raise UploadTooLarge(f"The body may have {bytes_max} bytes.")
            if part:
                yield part

    async def whole(self, bytes_max: int) -> bytes:
        """All of it, kept in memory as `kept` does. Most bodies of one image come in one piece.

        Raises:
            As `parts` and `kept`.
        """
        self._check_announced(bytes_max)
        pieces, more = list[bytes](), True
        while more:
            piece, more = await self._receive()
            self._keep(piece, bytes_max)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def limit(self, seconds: float) -> None:
        """All that is still to come must come within so many seconds."""
        self._limit_seconds = seconds
        self._until = self._loop.time() + seconds

    async def _receive(self) -> tuple[bytes, bool]:
        """What comes next, and whether more will."""
        left = self._until - self._loop.time()
        try:
            async with asyncio.timeout(min(left, self._idle_seconds_max)):
                message = await self._request.receive()
        except TimeoutError:
            if left < self._idle_seconds_max:
                raise UploadTimeout(f"An image may take {self._limit_seconds:g} seconds.") from None
            raise UploadTimeout(f"Nothing came for {self._idle_seconds_max:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The body was cut off.")
        return message.get("body", b""), message.get("more_body", False)

    async def kept(self, bytes_max: int, parts: AsyncIterator[bytes] | None = None) -> AsyncGenerator[bytes]:
        """The parts of a body that is kept in memory: what has come takes room until `close`.

        Raises:
            QueueFull: there is no room.
            And as `parts` does.
        """
        async for part in self.parts(bytes_max) if parts is None else parts:
            self._keep(part, bytes_max)
            yield part

    def _check_announced(self, bytes_max: int) -> None:
        announced = self.headers.get("content-length", "0")  # digits, as uvicorn has seen to; perhaps very many
        if len(announced) > _LENGTH_DIGITS_MAX or int(announced) > bytes_max:
            raise UploadTooLarge(f"The body may have {bytes_max} bytes, and announces more.")

    def _keep(self, part: bytes, bytes_max: int) -> None:
        self._taken += len(part)
        self._upload_budget.reserve(len(part))
        if self._taken > bytes_max:
            raise UploadTooLarge(f"The body may have {bytes_max} bytes.")

    def close(self) -> None:
        """What has come takes no room here any more: it is on its way into the store, which counts it, or dropped."""
        self._upload_budget.release(self._taken)
        self._taken = 0
