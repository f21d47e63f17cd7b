"""A load of HTTP requests by a cheap client: 15 to 25 µs of its own CPU per request.

Each client has its own connection, submits an image, reads its result, and submits the next.
"""

import asyncio
import itertools
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import uvloop

POLL_SECONDS = 0.05
WARM_SECONDS_MAX = 180.0  # until each client has read a result, and until the last one has at the end
_RAMP_SECONDS = 0.05  # over which the clients start, so that they are not in step
_CLASS = b'"class":'  # the first class in a result; the other classes of its `top_k` follow


class Answer(Protocol):
    """Interprets a response."""

    def __call__(self, status: bytes, body: bytes) -> bytes | None:
        """The next request to send, or None if the body contains the result."""


@dataclass(frozen=True)
class Dialect:
    """The requests of one service."""

    submit: Callable[[bytes, str], bytes]
    """The request that submits an image of a media type."""
    after: Callable[[bytes, bytes], bytes | None]
    """The next request after a response of this status and body; None if it contains the result."""
    pauses: bool = True
    """Whether the client waits `POLL_SECONDS` before that request."""


@dataclass(frozen=True)
class Shot:
    """One image to submit, and the class that must come back."""

    image: bytes
    media_type: str
    class_name: str


@dataclass
class Load:
    """Measurements from the end of the warm-up to the end."""

    seconds: float = 0
    latencies_s: list[float] = field(default_factory=list)
    """From the first byte sent to the last byte of the result; sorted."""
    requests: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    client_cpu_s: float = 0

    @property
    def images(self) -> int:
        return len(self.latencies_s)

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    def quantile_ms(self, share: float) -> float:
        return 1000 * self.latencies_s[min(self.images - 1, int(share * self.images))]


def request(method: str, path: str, body: bytes, **headers: str) -> bytes:
    """An HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Client(asyncio.Protocol):
    """One connection and one image at a time."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._data = b""
        self._class = b""
        self._began = 0.0
        self.warm = False
        """Whether this client has read a result."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def next_image(self) -> None:
        if self._run.over:
            self._run.left(self)
            return
        data, self._class = next(self._run.requests)
        self._began = time.perf_counter()
        self._send(data)

    def _send(self, data: bytes) -> None:
        self._run.load.requests += 1
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        at = data.find(b"content-length: ", 0, head) + 16
        body = head + 4
        if len(data) < body + int(data[at : data.find(b"\r", at)]):
            return
        self._data = b""
        self._answered(data[9:12], data[body:])

    def _answered(self, status: bytes, body: bytes) -> None:
        run = self._run
        if status not in (b"200", b"202"):
            run.failed(f"{status.decode()} {body[:200].decode(errors='replace')}")
        elif (more := run.dialect.after(status, body)) is not None:
            if run.dialect.pauses:
                self._loop.call_later(POLL_SECONDS, self._send, more)
            else:
                self._send(more)
            return
        else:
            run.ended(self._began, right=body.partition(_CLASS)[2].lstrip().startswith(self._class))
            self.warm = True
        self.next_image()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.over:
            self._run.failed(f"connection lost: {error}")
        self._run.left(self)

    def close(self) -> None:
        self._transport.close()


class _Run:
    def __init__(self, dialect: Dialect, shots: Sequence[Shot]) -> None:
        self.dialect = dialect
        self.load = Load()
        self.over = False
        self.idle = asyncio.Event()
        self.clients = set[_Client]()
        self._measuring = False
        self.requests = itertools.cycle(
            [(dialect.submit(it.image, it.media_type), f'"{it.class_name}"'.encode()) for it in shots]
        )

    def measure(self) -> None:
        self.load.requests = 0
        self._measuring = True

    def ended(self, began: float, *, right: bool) -> None:
        self.load.wrong += not right
        if self._measuring and not self.over:
            self.load.latencies_s.append(time.perf_counter() - began)

    def failed(self, why: str) -> None:
        self.load.failures.append(why)

    def left(self, client: _Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            self.idle.set()


def drive(
    port: int,
    dialect: Dialect,
    shots: Sequence[Shot],
    *,
    in_flight: int,
    seconds: float,
    warm_seconds: float = 1,
    on_start: Callable[[], None] = lambda: None,
    on_end: Callable[[], None] = lambda: None,
) -> Load:
    """Run `in_flight` clients for `seconds` after a warm-up.

    `on_start` and `on_end` are called at the start and at the end of the measurement.
    """

    async def run() -> Load:
        it = _Run(dialect, shots)
        loop = asyncio.get_running_loop()
        clients = list[_Client]()
        for number in range(in_flight):
            _, client = await loop.create_connection(lambda: _Client(it), "127.0.0.1", port)
            clients.append(client)
            loop.call_later(_RAMP_SECONDS * number / in_flight, client.next_image)
        it.clients = set(clients)
        await asyncio.sleep(warm_seconds)
        async with asyncio.timeout(WARM_SECONDS_MAX):
            while not all(
                client.warm for client in clients
            ):  # a busy server accepts one connection per turn of its event loop
                await asyncio.sleep(0.05)
        it.measure()
        on_start()
        began, cpu = time.perf_counter(), _cpu_seconds()
        await asyncio.sleep(seconds)
        it.load.seconds = time.perf_counter() - began
        it.load.client_cpu_s = _cpu_seconds() - cpu
        on_end()
        it.over = True
        async with asyncio.timeout(WARM_SECONDS_MAX):
            await it.idle.wait()
        for client in clients:
            client.close()
        it.load.latencies_s.sort()
        return it.load

    return uvloop.run(run())


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
