"""Fetches one image by reference, from the web or from S3."""

import asyncio

import aiohttp
from yarl import URL

from jobs.item_codes import ItemCode
from jobs.urls import is_web_url, s3_url
from worker.outbound.hosts import HostPaused, Hosts, Patience
from worker.outbound.s3 import S3Reader
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
    """The server has refused the image: retrying is useless."""

    def __init__(self, code: ItemCode) -> None:
        self.code = code


class _Failed(Exception):
    """The server failed to send the image: retrying may help, after the time in its `Retry-After`."""

    def __init__(self, retry_after: str | None) -> None:
        self.retry_after = retry_after


class Fetcher:
    def __init__(self, settings: FetchSettings, http: CheckedHttp, *, processes: int = 1) -> None:
        """`processes`: how many of a worker share the connections that a host may have."""
        self._settings = settings
        self._hosts = Hosts(
            connections_max=max(1, settings.fetch_host_connections // processes),
            errors_max=settings.fetch_host_errors_max,
            pause_seconds=settings.fetch_host_pause_seconds,
        )
        self._http = http
        self._s3 = S3Reader(settings)

    async def fetch(self, url: str) -> bytes | ItemCode:
        """The image's bytes or an error code, within the settings' limits, whatever a server does.

        Raises:
            HostBusy: no request was made: others have the connections that its host may have.
        """
        asked = ""
        try:
            async with asyncio.timeout(self._settings.fetch_seconds_max) as limit:
                if (place := s3_url(url)) is not None:
                    return await self._s3.read(place)
                if not is_web_url(url):
                    return ItemCode.INVALID_URL
                parsed = _parse(url)
                asked = _name(parsed)
                patience = Patience(limit, self._settings.fetch_host_wait_seconds_max)
                return await self._fetch_with_retries(parsed, patience)
        except TimeoutError:
            if asked:
                self._hosts.failed(asked)
            return ItemCode.FETCH_TIMEOUT
        except _Refused as refused:
            return refused.code

    async def _fetch_with_retries(self, url: URL, patience: Patience) -> bytes | ItemCode:
        code = ItemCode.FETCH_FAILED
        for attempt in range(TRIES_MAX):
            pause = self._hosts.pause_seconds(_name(url))
            if pause > (patience.fetching.when() or 0) - asyncio.get_running_loop().time():
                return code
            backoff = self._settings.fetch_retry_seconds * 2 ** (attempt - 1) if attempt else 0
            await asyncio.sleep(max(backoff, pause))
            try:
                return await self._follow(url, patience)
            except aiohttp.InvalidURL:
                return ItemCode.INVALID_URL
            except aiohttp.ServerTimeoutError:
                code = ItemCode.FETCH_TIMEOUT
            except (aiohttp.ClientError, OSError, ValueError, HostPaused, _Failed) as error:
                if is_forbidden(error):
                    return ItemCode.FORBIDDEN_ADDRESS
                code = ItemCode.FETCH_FAILED
        return code

    async def _follow(self, url: URL, patience: Patience) -> bytes:
        """The image's bytes, after at most `REDIRECTS_MAX` redirects. The address of each hop is checked."""
        for _ in range(REDIRECTS_MAX + 1):
            name = _name(url)
            async with self._hosts.connection(name, patience):
                try:
                    async with self._http.request("GET", url) as response:
                        if response.status not in _REDIRECTS:
                            image = await self._read(response)
                            self._hosts.worked(name)
                            return image
                        location = response.headers.get("Location", "")
                except _Failed as failed:
                    self._hosts.failed(name, failed.retry_after)
                    raise
                except (aiohttp.ClientError, OSError) as error:
                    if not is_forbidden(error) and not isinstance(error, aiohttp.InvalidURL):
                        self._hosts.failed(name)
                    raise
            url = _next_hop(url, location)
        raise _Refused(ItemCode.TOO_MANY_REDIRECTS)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status >= 500 or response.status == _TOO_MANY_REQUESTS:
            raise _Failed(response.headers.get("Retry-After"))
        if not 200 <= response.status < 300:
            raise _Refused(_CODES.get(response.status, ItemCode.FETCH_FAILED))
        bytes_max = self._settings.item_bytes_max
        if (response.content_length or 0) > bytes_max:
            raise _Refused(ItemCode.ITEM_TOO_LARGE)
        pieces, size = list[bytes](), 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > bytes_max:
                raise _Refused(ItemCode.ITEM_TOO_LARGE)
            pieces.append(piece)
        return b"".join(pieces)


def _name(url: URL) -> str:
    return (url.host or "").lower().rstrip(".")


def _parse(url: str) -> URL:
    try:
        return URL(url, encoded=url.isascii())  # not quoted again: that would break a signed URL
    except ValueError:
        raise _Refused(ItemCode.INVALID_URL) from None


def _next_hop(url: URL, location: str) -> URL:
    """The target of a redirect, which must be a web URL, and must not lead from https to http."""
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
