"""The parsers, each as a function of bytes that raises if the parser does what it must not.

A reader may refuse a body with a problem (`DarkroomError`), and nothing else may leave it. However the body is cut into
pieces, the images or the refusal are the same. No reader yields more bytes than its limits allow.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from yarl import URL

from api.settings import ApiSettings
from api.uploads.archive_limits import ArchiveLimits
from api.uploads.multipart import read_multipart
from api.uploads.references import read_references
from api.uploads.source import ArchiveStats, UploadedImage
from api.uploads.tar import read_tar
from api.uploads.zip import read_zip
from api.uploads.zip_spool import ZipSpools
from jobs.errors import DarkroomError, InvalidRequest
from jobs.item_codes import ItemCode
from jobs.owner_shares import OWNER_OF_ALL
from jobs.store.for_api.redis_connection import OutcomeUnknown, RedisProtocol, Request
from jobs.urls import is_web_url, s3_url
from worker.inference.images.container import READERS
from worker.inference.images.exif import orientation_of
from worker.inference.images.limits import DecodeError

BOUNDARY = "frontier"
FOUND_BYTES_MAX = 1 << 20  # unpacked, of one input
_SMALL_BYTES_MAX = 512  # up to here, an input is read byte by byte
_PIECE_BYTES = 509
_ADDED_BYTES_MAX = 64  # that a container's reader may write around the parts that it keeps
_USTAR_AT, _CHECKSUM_AT, _BLOCK = 257, 148, 512

_settings = ApiSettings(
    redis_url="unix:///nowhere", item_bytes_max=64 << 10, archive_inflated_bytes_max=FOUND_BYTES_MAX
)
_limits = ArchiveLimits.of(_settings)
_spools = ZipSpools(bytes_max=1 << 30, free_bytes_min=1)
_loop = asyncio.new_event_loop()

Reader = Callable[[AsyncIterator[bytes]], AsyncGenerator[UploadedImage]]
Found = list[UploadedImage] | type[DarkroomError]


def form(data: bytes) -> None:
    """The library's parser refuses some heads with lone line feeds in several pieces and not in one."""
    _read(data, lambda it: read_multipart(it, _settings, ArchiveStats(), BOUNDARY, None), refusals_may_differ=True)


def tar(data: bytes) -> None:
    """Also GNU's and PAX' headers. With checksums that are right, as an attacker's are."""
    _read(_with_checksums(data), lambda pieces: read_tar(pieces, _limits, ArchiveStats()))


def zip_archive(data: bytes) -> None:
    _read(data, lambda pieces: read_zip(pieces, _limits, ArchiveStats(), _spools, OWNER_OF_ALL))


def urls(data: bytes) -> None:
    """A body of URLs, and each text in it as a worker takes it."""
    _read(data, lambda pieces: read_references(pieces, _settings))
    text = data.decode(errors="replace")
    s3_url(text)
    if is_web_url(text):
        try:
            url = URL(text, encoded=text.isascii())
        except ValueError:
            return  # the worker's refusal
        assert url.scheme in ("http", "https"), url
        assert url.host, url


def png(data: bytes) -> None:
    _read_container("image/png", data)


def jpeg(data: bytes) -> None:
    _read_container("image/jpeg", data)


def other_pictures(data: bytes) -> None:
    """WebP, GIF and BMP; and EXIF's one tag."""
    for media_type in ("image/webp", "image/gif", "image/bmp"):
        _read_container(media_type, data)
    assert 1 <= orientation_of(data) <= 8


def redis_replies(data: bytes) -> None:
    """What a server sends to a connection with two requests in flight, of one and of two replies."""
    found = [_loop.run_until_complete(_replies(pieces)) for pieces in (_cut(data, len(data) or 1), _cut(data, 3))]
    assert repr(found[0]) == repr(found[1]), found


TARGETS: dict[str, Callable[[bytes], None]] = {
    "form": form,
    "tar": tar,
    "zip": zip_archive,
    "urls": urls,
    "png": png,
    "jpeg": jpeg,
    "other-pictures": other_pictures,
    "redis-replies": redis_replies,
}


def _read(data: bytes, reader: Reader, *, refusals_may_differ: bool = False) -> None:
    whole = _loop.run_until_complete(_found(reader(_arriving(data, len(data) or 1))))
    size = 1 if len(data) <= _SMALL_BYTES_MAX else _PIECE_BYTES
    in_pieces = _loop.run_until_complete(_found(reader(_arriving(data, size))))
    if refusals_may_differ and InvalidRequest in (whole, in_pieces):
        return
    assert in_pieces == whole, f"in pieces of {size} bytes: {in_pieces}, not {whole}"


async def _found(images: AsyncGenerator[UploadedImage]) -> Found:
    found, size = list[UploadedImage](), 0
    try:
        async for image in images:
            size += 0 if isinstance(image.data, ItemCode) else len(image.data)
            assert size <= FOUND_BYTES_MAX, "more bytes than the limits allow"
            found.append(image)
    except DarkroomError as refusal:
        return type(refusal)
    return found


async def _arriving(data: bytes, size: int) -> AsyncIterator[bytes]:
    for piece in _cut(data, size):
        yield piece


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _with_checksums(data: bytes) -> bytes:
    """With the sum of each block that says it is a header."""
    repaired = bytearray(data)
    for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
        if repaired[at + _USTAR_AT : at + _USTAR_AT + 5] == b"ustar":
            checksum = at + _CHECKSUM_AT
            repaired[checksum : checksum + 8] = b" " * 8
            repaired[checksum : checksum + 8] = b"%06o\0 " % sum(repaired[at : at + _BLOCK])
    return bytes(repaired)


def _read_container(media_type: str, data: bytes) -> None:
    try:
        picture = READERS[media_type](data)
    except DecodeError:
        return
    assert len(picture.data) <= len(data) + _ADDED_BYTES_MAX, "longer than the file"
    assert picture.width >= 0, picture.width
    assert picture.height >= 0, picture.height
    assert 1 <= picture.orientation <= 8, picture.orientation


async def _replies(pieces: Iterator[bytes]) -> list[Any]:
    protocol = RedisProtocol()
    loop = asyncio.get_running_loop()
    requests = [Request(commands, loop.create_future()) for commands in ([("GET", "a")], [("GET", "b"), ("GET", "c")])]
    protocol.transport = _Sink()
    exchange = asyncio.ensure_future(protocol.exchange(requests))
    await asyncio.sleep(0)
    try:
        for piece in pieces:
            protocol.data_received(piece)
    except Exception:  # hiredis' or for a reply too many: the event loop then closes the connection
        protocol.connection_lost(ConnectionResetError())
    else:
        protocol.connection_lost(None)
    await exchange
    found = list[Any]()
    for request in requests:
        try:
            found.append(await request.waiter)
        except OutcomeUnknown:
            found.append(None)
    return found


class _Sink(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass
