"""The images that clients submit, and the requests that bring them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

BAD_IMAGE = b"this is no picture"
LARGE_BYTES = 100_000  # more bytes behind a picture's end: such uploads wait outside Redis
PIECES, PIECE_SECONDS = 6, 0.05


@dataclass(frozen=True)
class Sample:
    """An image, and what each model says of it."""

    image: bytes
    expected: dict[str, tuple[str, float]]
    """Class and confidence by model."""


def large(image: bytes) -> bytes:
    """The picture as an upload that waits outside Redis."""
    return image + bytes(LARGE_BYTES)


async def in_pieces(data: bytes, go_on: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """The data in pieces with pauses, so that a fault may kill the API in the middle of the upload.

    With `go_on`, all but the last piece come at once, and the last one after it.
    """
    size = len(data) // PIECES + 1
    for at in range(0, len(data), size):
        if go_on is not None and at + size >= len(data):
            await go_on.wait()
        yield data[at : at + size]
        if go_on is None:
            await asyncio.sleep(PIECE_SECONDS)


def path_of(options: dict[str, Any]) -> str:
    webhook = f"&webhook_url={options['webhook_url']}" if options["webhook"] else ""
    lane = f"&lane={options['lane']}" if options["lane"] else ""
    return f"/v1/jobs?model={options['model']}{lane}{webhook}"
