"""The images of one upload, as the readers of all formats yield them."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.item_codes import ItemCode

_NAME_CHARACTERS_MAX = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


async def slices(pieces: AsyncIterator[bytes], bytes_max: int) -> AsyncGenerator[bytes]:
    """The pieces, none larger than `bytes_max`: what a parser does with one, it does in one go."""
    async for piece in pieces:
        if len(piece) <= bytes_max:
            yield piece
        else:
            for at in range(0, len(piece), bytes_max):
                yield piece[at : at + bytes_max]


class UploadedImage(NamedTuple):
    name: str | None
    data: bytes | ItemCode
    """The encoded image; its URL, for an upload by reference; or the code of the error if the reader refused it."""


@dataclass(slots=True)
class ArchiveStats:
    """Counts of a reader, besides the images."""

    skipped: int = 0
    """Members that are not content, for example `.DS_Store`, and fields of a form that are no files."""


@dataclass(slots=True)
class UploadSource:
    """The images of a request body, each yielded as soon as it is complete."""

    images: AsyncGenerator[UploadedImage]
    stats: ArchiveStats = field(default_factory=ArchiveStats)
    single: bool = False
    """Whether the body is one image. It is then buffered and submitted as a whole, not streamed."""
    by_reference: bool = False
    """Whether the data of each image is its URL, which an outbound worker fetches."""


def decode_name(raw: bytes) -> str:
    """A name in UTF-8, or else in Windows' western code page. Two different names stay different."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="surrogateescape")


def label(text: str) -> str | None:
    """A file name reduced to a printable label. The server never uses it as a path."""
    return _UNPRINTABLE.sub("�", text[:_NAME_CHARACTERS_MAX]) or None
