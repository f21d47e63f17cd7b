"""Request bodies into chunks: one image as it is, or multipart with many files, read as they arrive."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
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


async def read_images(
    request: Request, settings: ApiSettings, *, field: str | None = None
) -> AsyncGenerator[UploadedImage]:
    """The images of a request body, each as soon as it is complete; with `field`, that multipart field alone.

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
) -> AsyncGenerator[UploadedImage]:
    _refuse_announced(request, settings.upload_bytes_max)
    files, size = _Files(settings, field), 0
    parser = PushMultipartParser(
        boundary, max_segment_count=settings.upload_files_max + _OTHER_FIELDS_MAX, header_charset="latin1"
    )
    try:
        with parser:
            async for data in _stream(request):
                size += len(data)
                if size > settings.upload_bytes_max:
                    raise UploadTooLarge(f"An upload may have {settings.upload_bytes_max} bytes.")
                for event in parser.parse(data):
                    if (image := files.take(event)) is not None:
                        yield image
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files.count == 0:
        raise InvalidRequest(f"The multipart body has not {f'the field {field!r}' if field else 'a file'}.")


class _Files:
    """Collects the parser's events into images. Parts that are no file, or not the wanted field, are passed over."""

    def __init__(self, settings: ApiSettings, field: str | None) -> None:
        self.count = 0
        self._settings = settings
        self._field = field
        self._name: str | None = None
        self._parts: list[bytes] | None = None
        self._bytes = 0

    def take(self, event: MultipartSegment | bytes | None) -> UploadedImage | None:
        """An image, once its last byte has come."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif self._parts is not None and event is not None:
            self._bytes += len(event)
            if self._bytes <= self._settings.item_bytes_max:
                self._parts.append(event)
            else:
                self._parts.clear()
        elif self._parts is not None:
            parts, self._parts = self._parts, None
            too_large = self._bytes > self._settings.item_bytes_max
            return UploadedImage(self._name, None if too_large else b"".join(parts))
        return None

    def _begin(self, segment: MultipartSegment) -> None:
        wanted = segment.filename is not None if self._field is None else segment.name == self._field
        self._parts, self._bytes, self._name = [] if wanted else None, 0, _label(segment.filename)
        self.count += wanted
        if self.count > self._settings.upload_files_max:
            raise InvalidRequest(f"An upload may have {self._settings.upload_files_max} files.")


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
