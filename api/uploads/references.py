"""Reads the URLs of a JSON body, with S3 prefixes expanded to the objects below them."""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator

import ijson
import obstore.exceptions

from api.settings import ReferenceSettings
from api.uploads.source import UploadedImage, slices
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from jobs.s3 import list_prefix, open_bucket
from jobs.urls import S3Url, is_web_url, s3_url

_NAME_CHARACTERS_MAX = 255
_SLICE_BYTES = 4 << 10  # parsed in one go: up to 1,400 values
_TURN_EVENTS = 256  # between two turns of the event loop: about a millisecond
_UNPARSED_BYTES_MAX = 256 << 10  # of one value, which the parser buffers until it is complete
_WRONG_SHAPE = 'The body must be JSON like {"urls": ["https://example.com/a.png", "s3://bucket/prefix/"]}.'
# The parser's events around the URLs, in their only valid order; the URLs come before the event at _END_OF_LIST.
_FRAME = (("start_map", None), ("map_key", "urls"), ("start_array", None), ("end_array", None), ("end_map", None), None)
_END_OF_LIST = 3


async def read_references(pieces: AsyncIterator[bytes], settings: ReferenceSettings) -> AsyncGenerator[UploadedImage]:
    """One item for each image: its data is the URL, which an outbound worker fetches, or the code of a refusal.

    Raises:
        InvalidRequest: the body has another shape, or a prefix cannot be listed.
        UploadTooLarge: the body refers to more than `references_max` images.
    """
    count = 0
    async for url in _read_urls(pieces):
        async for image in _expand(url, settings):
            count += 1
            if count > settings.references_max:
                raise UploadTooLarge(f"A job may refer to at most {settings.references_max} images.")
            yield image


async def _read_urls(pieces: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """Each URL as it arrives. Parsed as a whole, a hostile body would take many times its size in memory."""
    events = ijson.sendable_list()
    # As integers, numbers of more than 4,300 digits would raise a SystemError. No number is of use here.
    parser = ijson.basic_parse_coro(events, use_float=True)
    position, empty, unparsed_bytes = 0, True, 0
    try:
        async for piece in _without_bom(slices(pieces, _SLICE_BYTES)):
            parser.send(piece)
            unparsed_bytes = 0 if events else unparsed_bytes + len(piece)
            if unparsed_bytes > _UNPARSED_BYTES_MAX:
                raise InvalidRequest(_WRONG_SHAPE)
            for count, event in enumerate(events, 1):
                if count % _TURN_EVENTS == 0:
                    await asyncio.sleep(0)  # let other requests run
                if event == _FRAME[position]:
                    position += 1
                elif position == _END_OF_LIST and event[0] == "string":
                    empty = False
                    yield event[1]
                else:
                    raise InvalidRequest(_WRONG_SHAPE)
            events.clear()
        parser.close()
    except (ijson.JSONError, UnicodeDecodeError):
        raise InvalidRequest(_WRONG_SHAPE) from None
    if empty:
        raise InvalidRequest(_WRONG_SHAPE)


async def _without_bom(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Without the byte order mark that editors and PowerShell put in front of a text (RFC 8259, 8.1)."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) > len(BOM_UTF8):  # an empty piece would end the text for the parser
            yield head.removeprefix(BOM_UTF8)
            break
    else:
        yield head
    async for piece in pieces:
        yield piece


async def _expand(url: str, settings: ReferenceSettings) -> AsyncGenerator[UploadedImage]:
    location = s3_url(url)
    if location is None:
        yield _item(url, url if is_web_url(url) else ItemCode.INVALID_URL)
    elif not settings.bucket_allowed(location.bucket):
        yield _item(url, ItemCode.FORBIDDEN_ADDRESS)
    elif not location.is_prefix:
        yield _item(url, url)
    else:
        found = False
        async for key in _list(location, settings):
            found = True
            yield _item(str(key), str(key))
        if not found:
            yield _item(url, ItemCode.FETCH_NOT_FOUND)


async def _list(prefix: S3Url, settings: ReferenceSettings) -> AsyncGenerator[S3Url]:
    seconds = settings.s3_list_seconds_max
    bucket = open_bucket(prefix.bucket, settings, connect_seconds=seconds, request_seconds=seconds)
    try:
        async for location in list_prefix(bucket, prefix):
            yield location
    except obstore.exceptions.InvalidPathError:
        raise InvalidRequest(
            f"{prefix} has objects whose keys are not valid paths; list its objects one by one."
        ) from None
    except (obstore.exceptions.BaseError, OSError):
        raise InvalidRequest(
            f"{prefix} cannot be listed: check the bucket, and that this server may read it."
        ) from None


def _item(name: str, data: str | ItemCode) -> UploadedImage:
    """An item named by its URL, without the query, which may contain a signature."""
    shown = name if name.startswith("s3:") else name.partition("?")[0].partition("#")[0]
    return UploadedImage(shown[-_NAME_CHARACTERS_MAX:], data if isinstance(data, ItemCode) else data.encode())
