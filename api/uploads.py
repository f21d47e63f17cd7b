"""What a request's body brings: one image, or many in a multipart body, an archive or a list of URLs."""

from collections.abc import AsyncGenerator, AsyncIterator

from multipart import parse_options_header

from api.archives import ArchiveLimits, is_tar
from api.body import Body
from api.images import Source, Tally, UploadedImage
from api.multipart_stream import read_multipart
from api.references import read_references
from api.settings import ApiSettings
from api.tar_stream import read_tar
from api.zip_stream import read_zip
from jobs.errors import InvalidRequest, UnsupportedMediaType
from jobs.media import sniff

_HEAD_BYTES = 512  # a tar's magic is in its first header
_FORM_BYTES = 64 << 10  # of a form around its one image
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


async def open_source(body: Body, settings: ApiSettings, *, field: str | None = None) -> Source:
    """What the body brings; with `field`, the one image in that multipart field.

    Raises:
        UnsupportedMediaType, UploadTooLarge, UploadTimeout, InvalidRequest: here or while the images are read.
    """
    media_type, options = parse_options_header(body.headers.get("content-type", ""))
    parts = body.parts(settings.upload_bytes_max)
    if field is not None:
        if media_type != "multipart/form-data":
            raise UnsupportedMediaType(f"Send multipart/form-data with the image in the field '{field}'.")
        parts = body.kept(settings.item_bytes_max + _FORM_BYTES)
    if media_type == "multipart/form-data":
        images = read_multipart(parts, settings, options.get("boundary", ""), field)
        return Source(images, alone=field is not None)
    if media_type.startswith("image/"):
        return Source(_read_image(body, body.parts(settings.item_bytes_max), settings, told=True), alone=True)
    if media_type in _TOLD_BY_MAGIC:
        head, parts = await _peek(parts)
        media_type = _archive_type(head)
        if not media_type:
            return Source(_read_image(body, parts, settings, told=False), alone=True)
    tally = Tally()
    if media_type in _TAR_TYPES:
        return Source(read_tar(parts, ArchiveLimits.of(settings), tally), tally)
    if media_type in _ZIP_TYPES:
        return Source(read_zip(parts, ArchiveLimits.of(settings), tally), tally)
    if media_type == "application/json":
        return Source(read_references(body.parts(settings.references_bytes_max), settings), by_reference=True)
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


async def _read_image(
    body: Body, parts: AsyncIterator[bytes], settings: ApiSettings, *, told: bool
) -> AsyncGenerator[UploadedImage]:
    data = b"".join([part async for part in body.kept(settings.item_bytes_max, parts)])
    if not data:
        raise InvalidRequest("The body is empty.")
    if not told and not (sniff(data) or "").startswith("image/"):
        raise UnsupportedMediaType(
            "The body is no image or archive of a known format. Send it with a Content-Type, or as multipart/form-data."
        )
    yield UploadedImage(None, data)
