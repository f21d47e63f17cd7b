"""What a request's body brings: one image, or many in a multipart body, an archive or a list of URLs."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial

from multipart import parse_options_header

from api.errors import UnsupportedMediaType
from api.settings import ApiSettings
from api.uploads.archive_limits import ArchiveLimits, is_tar
from api.uploads.body import Body
from api.uploads.multipart import read_multipart
from api.uploads.references import read_references
from api.uploads.source import ArchiveStats, UploadedImage, UploadSource
from api.uploads.tar import read_tar
from api.uploads.zip import read_zip
from jobs.errors import InvalidRequest
from jobs.media_types import sniff

_HEAD_BYTES = 512  # a tar's magic is in its first header
_FORM_BYTES = 64 << 10  # of a form around its one image
_EMPTY = "The body is empty."
# The last is what curl --data-binary says of any file.
_TOLD_BY_MAGIC = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_ZIP_TYPES = ("application/zip", "application/x-zip-compressed")
# A gzip-compressed tar goes by many names, and is told by its bytes.
_TAR_TYPES = (
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/x-gtar",
    "application/x-tgz",
    "application/x-compressed-tar",
    "application/x-tar+gzip",
)


def is_image(body: Body) -> bool:
    """Whether the body says that it is one image."""
    return body.headers.get("content-type", "")[:6].lower() == "image/"


async def read_image(body: Body, settings: ApiSettings) -> UploadedImage:
    """The body, where it says that it is one image.

    Raises:
        UploadTooLarge, UploadTimeout, InvalidRequest, QueueFull
    """
    data = await body.whole(settings.item_bytes_max)
    if not data:
        raise InvalidRequest(_EMPTY)
    return UploadedImage(None, data)


async def open_source(body: Body, settings: ApiSettings, *, field: str | None = None) -> UploadSource:
    """What the body brings; with `field`, the one image in that multipart field.

    Raises:
        UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest: here or while the images are read.
    """
    if is_image(body) and field is None:
        return UploadSource(_single(partial(read_image, body, settings)), alone=True)
    media_type, options = parse_options_header(body.headers.get("content-type", ""))
    parts = body.parts(settings.upload_bytes_max)
    if field is not None:
        if media_type != "multipart/form-data":
            raise UnsupportedMediaType(f"Send multipart/form-data with the image in the field '{field}'.")
        parts = body.kept(settings.item_bytes_max + _FORM_BYTES)
    if media_type == "multipart/form-data":
        images = read_multipart(parts, settings, options.get("boundary", ""), field)
        return UploadSource(images, alone=field is not None)
    if media_type in _TOLD_BY_MAGIC:
        head, parts = await _peek(parts)
        media_type = _archive_type(head)
        if not media_type:
            return UploadSource(_single(partial(_read_unknown, body, parts, settings)), alone=True)
    tally = ArchiveStats()
    if media_type in _TAR_TYPES:
        return UploadSource(read_tar(parts, ArchiveLimits.of(settings), tally), tally)
    if media_type in _ZIP_TYPES:
        return UploadSource(read_zip(parts, ArchiveLimits.of(settings), tally), tally)
    if media_type == "application/json":
        return UploadSource(read_references(body.parts(settings.references_bytes_max), settings), by_reference=True)
    raise UnsupportedMediaType(
        "Send image/*, application/octet-stream, multipart/form-data, application/x-tar, application/zip, "
        "or application/json with URLs."
    )


def _archive_type(head: bytes) -> str:
    """The media type of an archive that starts so, or ''."""
    kind = sniff(head) or ""
    if kind in _ZIP_TYPES or kind in _TAR_TYPES:
        return kind
    return "application/x-tar" if is_tar(head) else ""


async def _peek(parts: AsyncGenerator[bytes]) -> tuple[bytes, AsyncGenerator[bytes]]:
    """The first bytes, enough to tell what they are, and all parts, these included."""
    head = b""
    while len(head) < _HEAD_BYTES and (part := await anext(parts, None)) is not None:
        head += part

    async def again() -> AsyncGenerator[bytes]:
        if head:
            yield head
        async for part in parts:
            yield part

    return head, again()


async def _single(read: Callable[[], Awaitable[UploadedImage]]) -> AsyncGenerator[UploadedImage]:
    yield await read()


async def _read_unknown(body: Body, parts: AsyncIterator[bytes], settings: ApiSettings) -> UploadedImage:
    data = b"".join([part async for part in body.kept(settings.item_bytes_max, parts)])
    if not data:
        raise InvalidRequest(_EMPTY)
    if not (sniff(data) or "").startswith("image/"):
        raise UnsupportedMediaType(
            "The body is no image or archive of a known format. Send it with a Content-Type, or as multipart/form-data."
        )
    return UploadedImage(None, data)
