"""A request's body as it comes in."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import ClientDisconnect, Request

from api.settings import ApiSettings
from jobs.errors import InvalidRequest, UploadTimeout, UploadTooLarge
from jobs.room import UploadRoom

_LENGTH_DIGITS_MAX = 18


class Body:
    """A request's body as it comes in."""

    def __init__(self, request: Request, room: UploadRoom, settings: ApiSettings) -> None:
        self.headers = request.headers
        self._request = request
        self._room = room
        self._idle_seconds_max = settings.upload_idle_seconds_max
        self._size = 0
        self._taken = 0

    async def parts(self, bytes_max: int) -> AsyncGenerator[bytes]:
        """
        Raises:
            UploadTooLarge: it has, or announces, more than `bytes_max`.
            UploadTimeout: nothing came for too long.
            InvalidRequest: it was cut off.
        """
        announced = self.headers.get("content-length", "0")  # digits, as uvicorn has seen to; perhaps very many
        if len(announced) > _LENGTH_DIGITS_MAX or int(announced) > bytes_max:
            raise UploadTooLarge(f"The body may have {bytes_max} bytes, and announces more.")
        stream = self._request.stream()
        try:
            while True:
                async with asyncio.timeout(self._idle_seconds_max):
                    part = await anext(stream, None)
                if part is None:
                    return
                if self._size + len(part) > bytes_max:
                    raise UploadTooLarge(f"The body may have {bytes_max} bytes.")
                self._size += len(part)
                if part:
                    yield part
        except TimeoutError:
            raise UploadTimeout(f"Nothing came for {self._idle_seconds_max:g} seconds.") from None
        except ClientDisconnect:
            raise InvalidRequest("The body was cut off.") from None

    async def kept(self, bytes_max: int, parts: AsyncIterator[bytes] | None = None) -> AsyncGenerator[bytes]:
        """The parts of a body that is kept in memory: what has come takes room until `close`.

        Raises:
            QueueFull: there is no room.
            And as `parts` does.
        """
        async for part in self.parts(bytes_max) if parts is None else parts:
            self._taken += len(part)
            self._room.take(len(part))
            if self._taken > bytes_max:
                raise UploadTooLarge(f"The body may have {bytes_max} bytes.")
            yield part

    def close(self) -> None:
        """What has come takes no room here any more: it is on its way into the store, which counts it, or dropped."""
        self._room.release(self._taken)
        self._taken = 0
