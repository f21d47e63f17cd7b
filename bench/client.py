"""A load of HTTP requests, cheap enough not to be what is measured: 15 to 25 µs of its own CPU a request.

Each of so many clients has a connection of its own, submits an image, sees its result, and submits the next.
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
_RAMP_SECONDS = 0.05  # clients do not start in step
_CLASS = b'"class":'  # what comes first of a result; the other classes of its `top_k` come later


class Answer(Protocol):
    """What an answer means."""

    def __call__(self, status: bytes, body: bytes) -> bytes | None:
        """The next request to be sent, or None where the body has the result."""


@dataclass(frozen=True)
class Dialect:
    """How a service is spoken to."""

    submit: Callable[[bytes, str], bytes]
    """The request that brings an image of a media type."""
    after: Callable[[bytes, bytes], bytes | None]
    """What is asked after an answer of such a status and body; None: it has the result."""
    pauses: bool = True
    """Whether that waits for `POLL_SECONDS` first."""


@dataclass(frozen=True)
class Shot:
    """One image to submit, and the class that must come back."""

    image: bytes
    media_type: str
    class_name: str


@dataclass
class Load:
    """What was measured between the end of the warm-up and the end."""

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
    lines = [f"{method} {path} HTTP/1.1", "Host: bench"]
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
        """Whether it has had a result."""

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
            run.ended(self._began, right=body[body.find(_CLASS) :].startswith(self._class))
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
            [(dialect.submit(it.image, it.media_type), _CLASS + f'"{it.class_name}"'.encode()) for it in shots]
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
    measuring: Callable[[], None] = lambda: None,
    measured: Callable[[], None] = lambda: None,
) -> Load:
    """So many clients at once, for so long after a warm-up; `measuring` and `measured` are called around the latter."""

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
        async with asyncio.timeout(60):
            while not all(client.warm for client in clients):  # a busy server accepts one connection a turn of its loop
                await asyncio.sleep(0.05)
        it.measure()
        measuring()
        began, cpu = time.perf_counter(), _cpu_seconds()
        await asyncio.sleep(seconds)
        it.load.seconds = time.perf_counter() - began
        it.load.client_cpu_s = _cpu_seconds() - cpu
        measured()
        it.over = True
        async with asyncio.timeout(60):
            await it.idle.wait()
        for client in clients:
            client.close()
        it.load.latencies_s.sort()
        return it.load

    return uvloop.run(run())


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
