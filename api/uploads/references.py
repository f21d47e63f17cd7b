"""Jobs by reference: the URLs of a JSON body, S3 prefixes expanded to the objects below them."""

from collections.abc import AsyncGenerator, AsyncIterator

import ijson
import obstore.exceptions

from api.settings import ReferenceSettings
from api.uploads.source import UploadedImage
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from jobs.s3 import list_prefix, open_bucket
from jobs.urls import S3Url, is_web_url, s3_url

_NAME_CHARACTERS_MAX = 255
_UNREAD_BYTES_MAX = 256 << 10  # of one value, which the parser keeps until it ends
_SHAPE = 'The body must be JSON like {"urls": ["https://example.com/a.png", "s3://bucket/prefix/"]}.'
_FRAME = (("start_map", None), ("map_key", "urls"), ("start_array", None), ("end_array", None), ("end_map", None), None)
_IN_LIST = 3  # of the frame's events have come


async def read_references(parts: AsyncIterator[bytes], settings: ReferenceSettings) -> AsyncGenerator[UploadedImage]:
    """An item for each reference: its data is the URL, which an outbound worker will fetch, or why it is none.

    Raises:
        InvalidRequest: the body has another shape, or a prefix cannot be listed.
        UploadTooLarge: it refers to more than `references_max` images.
    """
    count = 0
    async for url in _urls(parts):
        async for image in _expand(url, settings):
            count += 1
            if count > settings.references_max:
                raise UploadTooLarge(f"A job may refer to {settings.references_max} images.")
            yield image


async def _urls(parts: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """Each URL as it comes in: parsed as a whole, a hostile body would take many times its bytes."""
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events)
    seen, empty, unread = 0, True, 0
    try:
        async for part in parts:
            parser.send(part)
            unread = 0 if events else unread + len(part)
            if unread > _UNREAD_BYTES_MAX:
                raise InvalidRequest(_SHAPE)
            for event in events:
                if event == _FRAME[seen]:
                    seen += 1
                elif seen == _IN_LIST and event[0] == "string":
                    empty = False
                    yield event[1]
                else:
                    raise InvalidRequest(_SHAPE)
            events.clear()
        parser.close()
    except ijson.JSONError:
        raise InvalidRequest(_SHAPE) from None
    if empty:
        raise InvalidRequest(_SHAPE)


async def _expand(url: str, settings: ReferenceSettings) -> AsyncGenerator[UploadedImage]:
    place = s3_url(url)
    if place is None:
        yield _item(url, url if is_web_url(url) else ItemCode.INVALID_URL)
    elif not settings.bucket_allowed(place.bucket):
        yield _item(url, ItemCode.FORBIDDEN_ADDRESS)
    elif not place.is_prefix:
        yield _item(url, url)
    else:
        found = False
        async for below in _list(place, settings):
            found = True
            yield _item(str(below), str(below))
        if not found:
            yield _item(url, ItemCode.FETCH_NOT_FOUND)


async def _list(prefix: S3Url, settings: ReferenceSettings) -> AsyncGenerator[S3Url]:
    seconds = settings.s3_list_seconds_max
    bucket = open_bucket(prefix.bucket, settings, connect_seconds=seconds, request_seconds=seconds)
    try:
        async for place in list_prefix(bucket, prefix):
            yield place
    except obstore.exceptions.InvalidPathError:
        raise InvalidRequest(f"{prefix} has objects whose keys are no paths; name its objects one by one.") from None
    except (obstore.exceptions.BaseError, OSError):
        raise InvalidRequest(f"{prefix} cannot be listed.") from None


def _item(name: str, data: str | ItemCode) -> UploadedImage:
    """The name goes without its query, which may hold a signature."""
    shown = name if name.startswith("s3:") else name.partition("?")[0].partition("#")[0]
    return UploadedImage(shown[-_NAME_CHARACTERS_MAX:], data if isinstance(data, ItemCode) else data.encode())
