"""One image by reference: its bytes, or why there are none."""

import asyncio

import aiohttp
from yarl import URL

from jobs.item_codes import ItemCode
from jobs.urls import is_web_url, s3_url
from worker.outbound.s3 import Buckets
from worker.outbound.settings import FetchSettings
from worker.outbound.web import CheckedHttp, is_forbidden

TRIES_MAX = 3  # of one image: after failed connections, and after 429 and 5xx
REDIRECTS_MAX = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_TOO_MANY_REQUESTS = 429
_CODES = {
    401: ItemCode.FETCH_DENIED,
    403: ItemCode.FETCH_DENIED,
    404: ItemCode.FETCH_NOT_FOUND,
    410: ItemCode.FETCH_NOT_FOUND,
}


class _Refused(Exception):
    """There is no image, and another try would not change that."""

    def __init__(self, code: ItemCode) -> None:
        self.code = code


class _Failed(Exception):
    """There was no image this time."""


class Fetcher:
    def __init__(self, settings: FetchSettings, web: CheckedHttp) -> None:
        self._settings = settings
        self._web = web
        self._buckets = Buckets(settings)

    async def fetch(self, url: str) -> bytes | ItemCode:
        """At most `item_bytes_max` bytes, within `fetch_seconds_max`. Whatever a server does, this does not raise."""
        try:
            async with asyncio.timeout(self._settings.fetch_seconds_max):
                if (place := s3_url(url)) is not None:
                    return await self._buckets.read(place)
                if not is_web_url(url):
                    return ItemCode.INVALID_URL
                return await self._try_often(_parse(url))
        except TimeoutError:
            return ItemCode.FETCH_TIMEOUT
        except _Refused as refused:
            return refused.code

    async def _try_often(self, url: URL) -> bytes | ItemCode:
        code = ItemCode.FETCH_FAILED
        for attempt in range(TRIES_MAX):
            if attempt:
                await asyncio.sleep(self._settings.fetch_retry_seconds * 2 ** (attempt - 1))
            try:
                return await self._follow(url)
            except aiohttp.InvalidURL:
                return ItemCode.INVALID_URL
            except aiohttp.ServerTimeoutError:
                code = ItemCode.FETCH_TIMEOUT
            except (aiohttp.ClientError, OSError, ValueError, _Failed) as error:
                if is_forbidden(error):
                    return ItemCode.FORBIDDEN_ADDRESS
                code = ItemCode.FETCH_FAILED
        return code

    async def _follow(self, url: URL) -> bytes:
        """The bytes at the end of a few redirects; each hop's address is checked as the first one's."""
        for _ in range(REDIRECTS_MAX + 1):
            async with self._web.request("GET", url) as answer:
                if answer.status not in _REDIRECTS:
                    return await self._read(answer)
                url = _next_hop(url, answer.headers.get("Location", ""))
        raise _Refused(ItemCode.TOO_MANY_REDIRECTS)

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status >= 500 or answer.status == _TOO_MANY_REQUESTS:
            raise _Failed
        if not 200 <= answer.status < 300:
            raise _Refused(_CODES.get(answer.status, ItemCode.FETCH_FAILED))
        most = self._settings.item_bytes_max
        if (answer.content_length or 0) > most:
            raise _Refused(ItemCode.ITEM_TOO_LARGE)
        parts, size = list[bytes](), 0
        async for part in answer.content.iter_any():
            size += len(part)
            if size > most:
                raise _Refused(ItemCode.ITEM_TOO_LARGE)
            parts.append(part)
        return b"".join(parts)


def _parse(url: str) -> URL:
    try:
        return URL(url, encoded=url.isascii())  # left as it is: quoting it anew would break a signed one
    except ValueError:
        raise _Refused(ItemCode.INVALID_URL) from None


def _next_hop(url: URL, location: str) -> URL:
    """Where a redirect leads, if that may be followed: web URLs, and never from TLS to none."""
    try:
        target = url.join(URL(location, encoded=location.isascii()))
        followed = is_web_url(str(target)) and (url.scheme, target.scheme) != ("https", "http")
    except ValueError:
        raise _Refused(ItemCode.FETCH_FAILED) from None
    if not location:
        raise _Refused(ItemCode.FETCH_FAILED)
    if not followed:
        raise _Refused(ItemCode.FORBIDDEN_ADDRESS)
    return target
