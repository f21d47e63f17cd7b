"""Packs the images of an upload into chunks."""

from collections.abc import Awaitable, Callable, Sequence

from api.uploads.source import UploadedImage, UploadSource
from jobs.codec import pack_upload
from jobs.item_codes import ItemCode
from jobs.records import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, REFERENCES_MAX
from jobs.store.for_api.submission import Chunk


class ChunkBuilder:
    """Collects images until a chunk is full."""

    def __init__(self, *, by_reference: bool = False) -> None:
        self._by_reference = by_reference
        self._items_max = REFERENCES_MAX if by_reference else CHUNK_ITEMS_MAX
        self._images = list[UploadedImage]()
        self._bytes = 0

    def add(self, image: UploadedImage) -> Chunk | None:
        """Returns the chunk of the earlier images if this image does not fit into it."""
        size = 0 if isinstance(image.data, ItemCode) else len(image.data)
        full = len(self._images) == self._items_max or self._bytes + size > CHUNK_BYTES_MAX
        chunk = self.build() if full and self._images else None
        self._images.append(image)
        self._bytes += size
        return chunk

    def build(self) -> Chunk | None:
        """The chunk of the images since the last one; None if there are none."""
        if not self._images:
            return None
        chunk = build_chunk(self._images, by_reference=self._by_reference)
        self._images, self._bytes = [], 0
        return chunk


def build_chunk(images: Sequence[UploadedImage], *, by_reference: bool = False) -> Chunk:
    """One chunk of all these images, at least one."""
    data = pack_upload([image.data for image in images])
    first = images[0].data
    return Chunk(
        [image.name for image in images],
        len(data),
        data,
        by_reference=by_reference,
        only_refused=first if len(images) == 1 and isinstance(first, ItemCode) else None,
    )


async def read_chunks(source: UploadSource, add: Callable[[Chunk], Awaitable[None]]) -> Chunk | None:
    """Pack images into chunks and pass each full one to `add`. Returns the last chunk, or None if there were no images.

    The caller adds the last chunk: how depends on whether it is also the first one.
    """
    builder = ChunkBuilder(by_reference=source.by_reference)
    async for image in source.images:
        if (full := builder.add(image)) is not None:
            await add(full)
    return builder.build()
