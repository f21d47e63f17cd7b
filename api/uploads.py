"""Request bodies into chunks: one image as it is, or multipart with many files, read as they arrive."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from api.settings import ApiSettings
from jobs.errors import InvalidRequest, ItemCode, UnsupportedMediaType, UploadTooLarge
from jobs.media import sniff
from jobs.records import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, pack_upload
from jobs.submit import Chunk, UploadRoom

_NAME_CHARACTERS_MAX = 255
_OTHER_FIELDS_MAX = 16
_LENGTH_DIGITS_MAX = 18
_FILES = "files"  # the field; parts that have a file name are taken under any name
_PARAMETERS = ("model", "top_k", "lane")  # as a form field, one would be passed over in silence
# The last is what curl --data-binary says of any file.
_TOLD_BY_MAGIC = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UploadedImage(NamedTuple):
    name: str | None
    data: bytes | ItemCode
    """A code says why the bytes were not kept."""


class Body:
    """A request's body as it comes in; what has come takes room until `close`."""

    def __init__(self, request: Request, room: UploadRoom) -> None:
        self.headers = request.headers
        self._request = request
        self._room = room
        self._size = 0

    async def parts(self, bytes_max: int) -> AsyncIterator[bytes]:
        """
        Raises:
            UploadTooLarge: it has, or announces, more than `bytes_max`.
            QueueFull: there is no room.
            InvalidRequest: it was cut off.
        """
        announced = self.headers.get("content-length", "0")  # digits, as uvicorn has seen to; perhaps very many
        if len(announced) > _LENGTH_DIGITS_MAX or int(announced) > bytes_max:
            raise UploadTooLarge(f"The body may have {bytes_max} bytes, and announces more.")
        try:
            async for part in self._request.stream():
                if self._size + len(part) > bytes_max:
                    raise UploadTooLarge(f"The body may have {bytes_max} bytes.")
                self._size += len(part)
                self._room.take(len(part))
                if part:
                    yield part
        except ClientDisconnect:
            raise InvalidRequest("The body was cut off.") from None

    def close(self) -> None:
        self._room.open_bytes -= self._size


async def read_images(body: Body, settings: ApiSettings, *, field: str | None = None) -> AsyncGenerator[UploadedImage]:
    """The images of a request body, each as soon as it is complete; with `field`, the one in that multipart field.

    Raises:
        UnsupportedMediaType, UploadTooLarge, InvalidRequest, QueueFull
    """
    media_type, options = parse_options_header(body.headers.get("content-type", ""))
    if media_type == "multipart/form-data":
        boundary = options.get("boundary")
        if not boundary:
            raise InvalidRequest("The multipart body has no boundary in its Content-Type.")
        async for image in _read_multipart(body, settings, boundary, field):
            yield image
    elif field is not None:
        raise UnsupportedMediaType(f"Send multipart/form-data with the image in the field '{field}'.")
    elif media_type.startswith("image/") or media_type in _TOLD_BY_MAGIC:
        data = b"".join([part async for part in body.parts(settings.item_bytes_max)])
        if not data:
            raise InvalidRequest("The body is empty.")
        if not media_type.startswith("image/") and not (sniff(data) or "").startswith("image/"):
            raise UnsupportedMediaType(
                "The body is not an image of a known format. Send it with a Content-Type of image/*, "
                "or as multipart/form-data."
            )
        yield UploadedImage(None, data)
    else:
        raise UnsupportedMediaType("Send image/*, application/octet-stream or multipart/form-data.")


class ChunkBuilder:
    """Packs images into chunks as they come."""

    def __init__(self) -> None:
        self._images = list[UploadedImage]()
        self._bytes = 0

    def add(self, image: UploadedImage) -> Chunk | None:
        """Returns the chunk before this image, once it is full."""
        size = 0 if isinstance(image.data, ItemCode) else len(image.data)
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


async def _read_multipart(
    body: Body, settings: ApiSettings, boundary: str, field: str | None
) -> AsyncGenerator[UploadedImage]:
    files = _Files(settings, field)
    parser = PushMultipartParser(
        boundary, max_segment_count=settings.upload_files_max + _OTHER_FIELDS_MAX, header_charset="latin1"
    )
    try:
        with parser:
            async for data in body.parts(settings.upload_bytes_max):
                for event in parser.parse(data):
                    if (image := files.take(event)) is not None:
                        yield image
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files.count == 0:
        raise InvalidRequest(f"The multipart body has no {f'field {field!r}' if field else 'file'}.")


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
            return UploadedImage(self._name, ItemCode.ITEM_TOO_LARGE if too_large else b"".join(parts))
        return None

    def _begin(self, segment: MultipartSegment) -> None:
        if self._field is not None:
            wanted, most = segment.name == self._field, 1
        else:
            wanted, most = segment.filename is not None or segment.name == _FILES, self._settings.upload_files_max
            if not wanted and segment.name in _PARAMETERS:
                raise InvalidRequest(f"{segment.name!r} is a parameter of the URL, not a part of the body.")
        self._parts, self._bytes, self._name = [] if wanted else None, 0, _label(segment.filename)
        self.count += wanted
        if self.count > most:
            raise InvalidRequest(f"The upload has more than {most} file{'s' if most > 1 else ''}.")


def _label(filename: str | None) -> str | None:
    """A file name as a label: its last component, without what does not print. It never names a file here."""
    if filename is None:
        return None
    text = filename.encode("latin1").decode(errors="replace")  # headers are read as latin1, for any bytes may come
    last = re.split(r"[/\\]", text)[-1]
    return _UNPRINTABLE.sub("�", last)[:_NAME_CHARACTERS_MAX] or None
