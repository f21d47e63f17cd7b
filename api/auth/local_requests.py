"""Without API keys only this machine can reach the API, and a web page in this machine's browser may not use that.

A page of any site can send requests to 127.0.0.1. It may read no answers, but submits and deletes need none; and a site
whose name leads to 127.0.0.1 for a while (DNS rebinding) may also read: to the browser, the API is that site.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from api.errors import CrossSiteRequest, WrongHost

_READ_METHODS = frozenset({"GET", "OPTIONS"})  # HEAD is a GET here: api/asgi/request_id.py


class LocalRequests:
    """Checks requests without a key."""

    def __init__(self, allowed_hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        """`allowed_hosts`: names in `Host`, beside those of this machine. `origins`: of pages that may call."""
        self._origins = {origin.encode() for origin in origins}
        self._allowed = {name.lower() for name in allowed_hosts}
        self._known = set[bytes]()  # the last values of `Host` that were allowed

    def check(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check where a request without a key comes from.

        Raises:
            WrongHost, CrossSiteRequest
        """
        host = origin = site = b""
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if host not in self._known:
            self._check_host(host)
        if (
            method not in _READ_METHODS
            and not self._origins & {origin, b"*"}
            and (
                site == b"cross-site"
                or (origin and urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") != host)
            )
        ):
            raise CrossSiteRequest

    def _check_host(self, host: bytes) -> None:
        text = host.decode("latin-1")
        if host and not self._is_allowed(text):
            raise WrongHost(
                f"ALLOWED_HOSTS has no {text[:100]!r}: without API keys, only names of this machine will do."
            )
        if len(self._known) < len(self._allowed) + 16:
            self._known.add(host)

    def _is_allowed(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False
