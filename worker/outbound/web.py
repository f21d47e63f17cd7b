"""HTTP to servers that nobody vouches for: no redirects of its own, no proxies, no cookies, checked addresses."""

from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from worker.outbound.addresses import AddressRules, ForbiddenAddress
from worker.outbound.settings import FetchSettings

CONNECT_SECONDS = 5  # for one connection to be established
USER_AGENT = "Darkroom/1 (image classification service)"


class CheckedHttp:
    """Opened in the event loop that it is used in."""

    def __init__(self, settings: FetchSettings, resolver: AbstractResolver | None = None) -> None:
        self._allow_hosts = {host.lower().rstrip(".") for host in settings.fetch_allow_hosts}
        rules = AddressRules(settings.fetch_allow_networks)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

        def session(**options: Any) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=resolver, **options),
                timeout=timeout,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # what is sent compressed all the same is no image, and no bomb
                trust_env=False,
            )

        self._checked = session(socket_factory=rules.open_socket)
        self._unchecked = session()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._checked.close()
        await self._unchecked.close()

    def request(self, method: str, url: URL, **options: Any) -> "aiohttp.client._RequestContextManager":
        """The answer, as it is: a redirect is one, too. Raises as aiohttp does; see `is_forbidden`."""
        trusted = (url.host or "").lower().rstrip(".") in self._allow_hosts
        session = self._unchecked if trusted else self._checked
        return session.request(method, url, allow_redirects=False, **options)


def is_forbidden(error: BaseException) -> bool:
    """Whether a request failed because its host has no address that may be spoken to."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddress)
