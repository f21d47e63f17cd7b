"""What others' servers are spared: connections to each host, and requests to one that fails or asks for a pause."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_AFTER_SECONDS_MAX = 3600  # of a server's `Retry-After`: a longer pause is cut to this
HOSTS_KEPT_MAX = 10_000  # of which a process remembers errors and pauses


class HostBusy(Exception):
    """All connections that a host may have were in use for too long."""


class HostPaused(Exception):
    """A host has failed too often, or has asked for a pause that has not ended."""


@dataclass(slots=True)
class Patience:
    """The time that one image has: waiting for a connection does not count towards its fetching, and is bounded."""

    fetching: asyncio.Timeout
    waiting_seconds: float


@dataclass(slots=True)
class _Host:
    connections: asyncio.Semaphore
    users: int = 0
    errors: int = 0
    """In a row."""
    paused_until: float = field(default=0)
    """A time of the monotonic clock."""


class Hosts:
    """Of one process. Hosts are told apart by their names."""

    def __init__(self, *, connections_max: int, errors_max: int, pause_seconds: float) -> None:
        self._connections_max = connections_max
        self._errors_max = errors_max
        self._pause_seconds = pause_seconds
        self._hosts = dict[str, _Host]()

    @asynccontextmanager
    async def connection(self, name: str, patience: Patience) -> AsyncIterator[None]:
        """One of the host's connections, for a request and its response.

        Raises:
            HostBusy, HostPaused
        """
        host = self._host(name)
        host.users += 1
        try:
            await self._acquire(host, patience)
            try:
                if self.pause_seconds(name) > 0:
                    raise HostPaused
                yield
            finally:
                host.connections.release()
        finally:
            host.users -= 1

    async def _acquire(self, host: _Host, patience: Patience) -> None:
        if not host.connections.locked():
            await host.connections.acquire()
            return
        started, ends = time.monotonic(), patience.fetching.when()
        if ends is not None:
            patience.fetching.reschedule(ends + patience.waiting_seconds)
        try:
            async with asyncio.timeout(patience.waiting_seconds):
                await host.connections.acquire()
        except TimeoutError:
            raise HostBusy from None
        finally:
            waited = time.monotonic() - started
            patience.waiting_seconds = max(0, patience.waiting_seconds - waited)
            if ends is not None and not patience.fetching.expired():
                patience.fetching.reschedule(ends + waited)

    def pause_seconds(self, name: str) -> float:
        """How long the host is not to be asked; 0 if it may be."""
        return max(0, self._host(name).paused_until - time.monotonic())

    def worked(self, name: str) -> None:
        self._host(name).errors = 0

    def failed(self, name: str, retry_after: str | None = None) -> None:
        """After `errors_max` failures in a row the host gets a pause, and after it one request decides on the next."""
        host = self._host(name)
        host.errors += 1
        pause = min(_seconds_of(retry_after), RETRY_AFTER_SECONDS_MAX)
        if host.errors >= self._errors_max:
            host.errors, pause = self._errors_max - 1, max(pause, self._pause_seconds)
        if pause:
            host.paused_until = max(host.paused_until, time.monotonic() + pause)

    def _host(self, name: str) -> _Host:
        found = self._hosts.get(name)
        if found is None:
            if len(self._hosts) >= HOSTS_KEPT_MAX:
                self._hosts = {name: host for name, host in self._hosts.items() if host.users or host.errors}
                if len(self._hosts) >= HOSTS_KEPT_MAX:  # of failing ones, the oldest are forgotten
                    idle = [name for name, host in self._hosts.items() if not host.users]
                    for name_ in idle[: HOSTS_KEPT_MAX // 2]:
                        del self._hosts[name_]
            found = self._hosts[name] = _Host(asyncio.Semaphore(self._connections_max))
        return found


def _seconds_of(retry_after: str | None) -> float:
    """Of the header's value, seconds or a date; 0 for none and for what is neither."""
    if retry_after is None:
        return 0
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0, (at - datetime.now(UTC)).total_seconds())
