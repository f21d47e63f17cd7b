"""The images of an upload, and chunks made of them."""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.errors import ItemCode
from jobs.records import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, REFERENCES_MAX, pack_upload
from jobs.submit import Chunk

_NAME_CHARACTERS_MAX = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UploadedImage(NamedTuple):
    name: str | None
    data: bytes | ItemCode
    """A code says why the bytes were not kept."""


@dataclass(slots=True)
class Tally:
    """What a reader has met beside images."""

    skipped: int = 0
    """Entries that are no content, as `.DS_Store` is."""


@dataclass(slots=True)
class Source:
    """The images of a request body, each as soon as it is complete."""

    images: AsyncGenerator[UploadedImage]
    tally: Tally = field(default_factory=Tally)
    alone: bool = False
    """Whether the body is one image, and so its upload one step."""
    by_reference: bool = False
    """Whether the data of each is a URL, which a worker fetches."""


class ChunkBuilder:
    """Packs images into chunks as they come."""

    def __init__(self, *, by_reference: bool = False) -> None:
        self._by_reference = by_reference
        self._items_max = REFERENCES_MAX if by_reference else CHUNK_ITEMS_MAX
        self._images = list[UploadedImage]()
        self._bytes = 0

    def add(self, image: UploadedImage) -> Chunk | None:
        """Returns the chunk before this image, once it is full."""
        size = 0 if isinstance(image.data, ItemCode) else len(image.data)
        full = len(self._images) == self._items_max or self._bytes + size > CHUNK_BYTES_MAX
        chunk = self.build() if full and self._images else None
        self._images.append(image)
        self._bytes += size
        return chunk

    def build(self) -> Chunk | None:
        """The chunk of what has come since the last one."""
        if not self._images:
            return None
        chunk = chunk_of(self._images, by_reference=self._by_reference)
        self._images, self._bytes = [], 0
        return chunk


def chunk_of(images: Sequence[UploadedImage], *, by_reference: bool = False) -> Chunk:
    """One chunk of all these images, of which there is one at least."""
    data = pack_upload([image.data for image in images])
    first = images[0].data
    return Chunk(
        [image.name for image in images],
        len(data),
        data,
        by_reference=by_reference,
        only_refused=first if len(images) == 1 and isinstance(first, ItemCode) else None,
    )


def label(text: str) -> str | None:
    """A name as a label, without what does not print. It never names a file here."""
    return _UNPRINTABLE.sub("�", text)[:_NAME_CHARACTERS_MAX] or None
