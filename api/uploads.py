"""Request bodies into chunks: one image as it is, or multipart with many files, read as they arrive."""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from api.settings import ApiSettings
from jobs.errors import InvalidRequest, UnsupportedMediaType, UploadTooLarge
from jobs.media import sniff
from jobs.records import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, pack_upload
from jobs.submit import Chunk

_NAME_CHARACTERS_MAX = 255
_OTHER_FIELDS_MAX = 16
# The last is what curl --data-binary says of any file.
_TOLD_BY_MAGIC = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UploadedImage(NamedTuple):
    name: str | None
    data: bytes | None
    """None where the image was larger than one may be; its bytes were not kept."""


async def read_images(request: Request, settings: ApiSettings, *, field: str | None = None) -> AsyncIterator[UploadedImage]:
    """The images of a request body, each as soon as it is complete. `field`: take the multipart field of this name alone.

    Raises:
        UnsupportedMediaType, UploadTooLarge, InvalidRequest
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type == "multipart/form-data":
        boundary = options.get("boundary")
        if not boundary:
            raise InvalidRequest("The multipart body has no boundary in its Content-Type.")
        async for image in _read_multipart(request, settings, boundary, field):
            yield image
    elif field is not None:
        raise UnsupportedMediaType(f"Send multipart/form-data with the image in the field '{field}'.")
    elif media_type.startswith("image/") or media_type in _TOLD_BY_MAGIC:
        body = await _read_body(request, settings.item_bytes_max)
        if not media_type.startswith("image/") and not (sniff(body) or "").startswith("image/"):
            raise UnsupportedMediaType(
                "The body is no image that is known here. Say what it is with a Content-Type of image/*, "
                "or send multipart/form-data."
            )
        yield UploadedImage(None, body)
    else:
        raise UnsupportedMediaType("Send image/*, application/octet-stream or multipart/form-data.")


class ChunkBuilder:
    """Packs images into chunks as they come."""

    def __init__(self) -> None:
        self._images = list[UploadedImage]()
        self._bytes = 0

    def add(self, image: UploadedImage) -> Chunk | None:
        """Returns the chunk before this image, once it is full."""
        size = len(image.data or b"")
        full = len(self._images) == CHUNK_ITEMS_MAX or self._bytes + size > CHUNK_BYTES_MAX
        chunk = self.build() if full and self._images else None
        self._images.append(image)
        self._bytes += size
        return chunk

    def build(self) -> Chunk | None:
        """The chunk of what has come since the last one."""
        if not self._images:
            return None
        data = pack_upload([image.data for image in self._images])
        chunk = Chunk([image.name for image in self._images], len(data), data)
        self._images, self._bytes = [], 0
        return chunk


async def _read_body(request: Request, bytes_max: int) -> bytes:
    _refuse_announced(request, bytes_max)
    parts, size = list[bytes](), 0
    async for part in _stream(request):
        size += len(part)
        if size > bytes_max:
            raise UploadTooLarge(f"An image may have {bytes_max} bytes.")
        parts.append(part)
    if size == 0:
        raise InvalidRequest("The body is empty.")
    return b"".join(parts)


async def _read_multipart(
    request: Request, settings: ApiSettings, boundary: str, field: str | None
) -> AsyncIterator[UploadedImage]:
    _refuse_announced(request, settings.upload_bytes_max)
    files, size = 0, 0
    name: str | None = None
    parts: list[bytes] | None = None  # of the file being read; None in a part that is no file
    kept = 0
    try:
        with PushMultipartParser(
            boundary, max_segment_count=settings.upload_files_max + _OTHER_FIELDS_MAX, header_charset="latin1"
        ) as parser:
            async for data in _stream(request):
                size += len(data)
                if size > settings.upload_bytes_max:
                    raise UploadTooLarge(f"An upload may have {settings.upload_bytes_max} bytes.")
                for event in parser.parse(data):
                    if isinstance(event, MultipartSegment):
                        wanted = event.filename is not None if field is None else event.name == field
                        parts, kept, name = [] if wanted else None, 0, _label(event.filename)
                        files += wanted
                        if files > settings.upload_files_max:
                            raise InvalidRequest(f"An upload may have {settings.upload_files_max} files.")
                    elif event is None and parts is not None:
                        too_large = kept > settings.item_bytes_max
                        yield UploadedImage(name, None if too_large else b"".join(parts))
                        parts = None
                    elif event is not None and parts is not None:
                        kept += len(event)
                        if kept <= settings.item_bytes_max:
                            parts.append(bytes(event))
                        else:
                            parts.clear()
            for _ in parser.parse(b""):
                pass
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files == 0:
        wanted_field = f"the field '{field}'" if field else "a file"
        raise InvalidRequest(f"The multipart body has not {wanted_field}.")


async def _stream(request: Request) -> AsyncIterator[bytes]:
    try:
        async for part in request.stream():
            if part:
                yield part
    except ClientDisconnect:
        raise InvalidRequest("The body was cut off.") from None


def _refuse_announced(request: Request, bytes_max: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > bytes_max:
        raise UploadTooLarge(f"The body may have {bytes_max} bytes; {announced} were announced.")


def _label(filename: str | None) -> str | None:
    """A file name as a label: its last component, without what does not print. It never names a file here."""
    if filename is None:
        return None
    text = filename.encode("latin1").decode(errors="replace")  # headers are read as latin1, for any bytes may come
    last = re.split(r"[/\\]", text)[-1]
    return _UNPRINTABLE.sub("�", last)[:_NAME_CHARACTERS_MAX] or None
