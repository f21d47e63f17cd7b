"""HTTP to untrusted servers: every address is checked; no automatic redirects, no proxies, no cookies."""

from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from worker.outbound.addresses import AddressRules, ForbiddenAddress
from worker.outbound.settings import FetchSettings

CONNECT_SECONDS = 5  # for one connection to be established
USER_AGENT = "Darkroom/1 (image classification service)"


class CheckedHttp:
    """Made in the event loop in which it is used."""

    def __init__(
        self, settings: FetchSettings, resolver: AbstractResolver | None = None, *, dns_cache: bool = True
    ) -> None:
        self._allow_hosts = {host.lower().rstrip(".") for host in settings.fetch_allow_hosts}
        rules = AddressRules(settings.fetch_allow_networks)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

        def session(**options: Any) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=resolver, use_dns_cache=dns_cache, **options),
                timeout=timeout,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # an unrequested compression could unpack to gigabytes
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
        """The response, also if it is a redirect. Raises the errors of aiohttp; see `is_forbidden`."""
        trusted = (url.host or "").lower().rstrip(".") in self._allow_hosts
        session = self._unchecked if trusted else self._checked
        return session.request(method, url, allow_redirects=False, **options)


def is_forbidden(error: BaseException) -> bool:
    """Whether a request failed because its host has no allowed address."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddress)
