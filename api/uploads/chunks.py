"""The images of an upload, and chunks made of them."""

from collections.abc import Awaitable, Callable, Sequence

from api.uploads.source import UploadedImage, UploadSource
from jobs.codec import pack_upload
from jobs.item_codes import ItemCode
from jobs.records import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, REFERENCES_MAX
from jobs.store.submit import Chunk


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


async def read_chunks(source: UploadSource, add: Callable[[Chunk], Awaitable[None]]) -> Chunk | None:
    """Pack images into chunks and hand on each full one. Returns the last, or None where no image came."""
    builder = ChunkBuilder(by_reference=source.by_reference)
    async for image in source.images:
        if (full := builder.add(image)) is not None:
            await add(full)
    return builder.build()
