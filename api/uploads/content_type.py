"""Picks the reader of a request body, by its Content-Type or, if that says nothing, by its first bytes."""

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
from api.uploads.zip_spool import ZipSpools
from jobs.errors import InvalidRequest
from jobs.media_types import sniff

_HEAD_BYTES = 512  # a tar's magic is in its first header
_FORM_BYTES = 64 << 10  # of a form around its one image
_EMPTY = "The body is empty: send an image, an archive, a form, or JSON with URLs."
# Types that say nothing about the content. The third is S3's default, the last what curl --data-binary sends.
_GENERIC_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")
_ZIP_TYPES = ("application/zip", "application/x-zip-compressed")
# Gzip-compressed tars have many names; the reader recognizes compression by the first bytes.
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
    """Whether the Content-Type declares one image."""
    return body.headers.get("content-type", "")[:6].lower() == "image/"


async def read_image(body: Body, settings: ApiSettings) -> UploadedImage:
    """The body of a request whose Content-Type declares one image.

    Raises:
        UploadTooLarge, UploadTimeout, InvalidRequest, QueueFull
    """
    data = await body.read_all(settings.item_bytes_max)
    if not data:
        raise InvalidRequest(_EMPTY)
    return UploadedImage(None, data)


async def open_source(
    body: Body, settings: ApiSettings, zip_spools: ZipSpools, *, field: str | None = None
) -> UploadSource:
    """The images of the body; with `field`, the one image in that multipart field.

    Raises:
        UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest: here or while the images are read.
    """
    if is_image(body) and field is None:
        return UploadSource(_single(partial(read_image, body, settings)), single=True)
    media_type, options = parse_options_header(body.headers.get("content-type", ""))
    stats, pieces = ArchiveStats(), body.pieces(settings.upload_bytes_max)
    if field is not None:
        if media_type != "multipart/form-data":
            raise UnsupportedMediaType(f"Send multipart/form-data with the image in the field '{field}'.")
        pieces = body.buffered(settings.item_bytes_max + _FORM_BYTES)
    if media_type == "multipart/form-data":
        images = read_multipart(pieces, settings, stats, options.get("boundary", ""), field)
        return UploadSource(images, stats, single=field is not None)
    if media_type in _GENERIC_TYPES:
        head, pieces = await _peek(pieces)
        media_type = _archive_type(head)
        if not media_type:
            return UploadSource(_single(partial(_read_undeclared_image, body, pieces, settings)), single=True)
    if media_type in _TAR_TYPES:
        return UploadSource(read_tar(pieces, ArchiveLimits.of(settings), stats), stats)
    if media_type in _ZIP_TYPES:
        return UploadSource(read_zip(pieces, ArchiveLimits.of(settings), stats, zip_spools, body.owner), stats)
    if media_type == "application/json":
        return UploadSource(read_references(body.pieces(settings.references_bytes_max), settings), by_reference=True)
    raise UnsupportedMediaType(
        "Send image/*, application/octet-stream, multipart/form-data, application/x-tar, application/zip, "
        "or application/json with URLs."
    )


def _archive_type(head: bytes) -> str:
    """The media type of an archive with these first bytes, or ""."""
    kind = sniff(head) or ""
    if kind in _ZIP_TYPES or kind in _TAR_TYPES:
        return kind
    return "application/x-tar" if is_tar(head) else ""


async def _peek(pieces: AsyncGenerator[bytes]) -> tuple[bytes, AsyncGenerator[bytes]]:
    """The first bytes, enough to recognize the format, and all pieces including these bytes."""
    head = b""
    while len(head) < _HEAD_BYTES and (piece := await anext(pieces, None)) is not None:
        head += piece

    async def all_pieces() -> AsyncGenerator[bytes]:
        if head:
            yield head
        async for piece in pieces:
            yield piece

    return head, all_pieces()


async def _single(read: Callable[[], Awaitable[UploadedImage]]) -> AsyncGenerator[UploadedImage]:
    yield await read()


async def _read_undeclared_image(body: Body, pieces: AsyncIterator[bytes], settings: ApiSettings) -> UploadedImage:
    data = b"".join([piece async for piece in body.buffered(settings.item_bytes_max, pieces)])
    if not data:
        raise InvalidRequest(_EMPTY)
    if not (sniff(data) or "").startswith("image/"):
        raise UnsupportedMediaType(
            "The body is not an image or archive in a known format. "
            "Send it with a Content-Type, or as multipart/form-data."
        )
    return UploadedImage(None, data)
