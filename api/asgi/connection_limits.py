"""Limits of connections, and what looks after them: no client keeps a connection by sending or reading too slowly.

One look at all connections each second. A timer of its own for each request would cost more than the limits do.
"""

import asyncio
import resource
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Protocol, Self

from api.settings import ApiSettings

_LOOK_SECONDS = 1.0
_REFUSED_MAX = 64  # connections at a time that are over a limit, and stay for a moment so that the client learns why
_OTHER_FILES = 256 + _REFUSED_MAX  # of the process: connections to Redis, spools, the listening socket
_OPEN_FILES_MAX = 1 << 20
_NETWORK_BITS = 64  # of IPv6: who has one address there has all of its network


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Of one API process."""

    url_bytes_max: int
    headers_max: int
    headers_bytes_max: int
    pipelined_max: int
    first_byte_seconds_max: float
    head_seconds_max: float
    reader_seconds: float
    """Over which the pace of a reader is judged."""
    reader_bytes_per_second_min: int
    connections_max: int
    connections_per_address_max: int
    retry_after_seconds: int

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        return cls(
            url_bytes_max=settings.request_url_bytes_max,
            headers_max=settings.request_headers_max,
            headers_bytes_max=settings.request_headers_bytes_max,
            pipelined_max=settings.pipelined_requests_max,
            first_byte_seconds_max=settings.request_first_byte_seconds_max,
            head_seconds_max=settings.request_head_seconds_max,
            reader_seconds=settings.response_idle_seconds_max,
            reader_bytes_per_second_min=settings.response_bytes_per_second_min,
            connections_max=settings.connections_max,
            connections_per_address_max=settings.connections_per_address_max,
            retry_after_seconds=settings.retry_after_seconds,
        )


class Connection(Protocol):
    """What is looked at."""

    def look(self, now: float) -> None:
        """Close the connection if a limit of time is over."""


class Connections:
    """All connections of this process."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open = dict[Connection, str]()
        self._by_network = Counter[str]()
        self._refused = set[Connection]()
        self._next_look: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, address: str | None, loop: asyncio.AbstractEventLoop) -> bool:
        """Returns False if there are too many, of this address (IPv6: of its /64 network) or altogether.

        Such a connection takes no place of another one, and is to be ended soon, or at once unless `may_stay`.
        """
        if self._next_look is None:
            self._next_look = loop.call_later(_LOOK_SECONDS, self._look, loop)
        network = "" if address is None else _network(address)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES
        connections_max = max(1, min(self.limits.connections_max, files))
        share = max(1, min(self.limits.connections_per_address_max, connections_max // 2))
        if len(self._open) >= connections_max or (network and self._by_network[network] >= share):
            self._refused.add(connection)
            return False
        self._open[connection] = network
        self._by_network[network] += 1
        return True

    @property
    def may_stay(self) -> bool:
        """Whether the connection that was refused last may stay until its client knows why."""
        return len(self._refused) <= _REFUSED_MAX

    def remove(self, connection: Connection) -> None:
        if connection in self._refused:
            self._refused.remove(connection)
            return
        network = self._open.pop(connection)
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        connections = [*self._open, *self._refused]
        self._next_look = loop.call_later(_LOOK_SECONDS, self._look, loop) if connections else None
        now = loop.time()
        for connection in connections:
            connection.look(now)


def raise_open_files_limit() -> None:
    """Raise the soft limit of open files to the hard one: a login shell's is 1,024, and each connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS allows fewer than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _network(address: str) -> str:
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _NETWORK_BITS), strict=False))
