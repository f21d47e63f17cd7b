"""Clients that dribble headers or bodies, in a process of their own.

A process that is spawned cannot look functions up in a package's `__main__`, so they are here.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.deploy.edge import KEY

SLOW_CLIENTS = 1_000
WARM_UP_SECONDS = 6
REPORT_SECONDS_MAX = 60
HEAD = (
    f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: image/png\r\n".encode()
)
DRIBBLES = {  # what is sent at once, and what each second
    "headers": (HEAD, b"X-a: b\r\n"),
    "bodies": (HEAD + b"Content-Length: 600\r\n\r\n", b"x"),
}


async def _dribble(port: int, tls: ssl.SSLContext | None, kind: str, ends: Counter[str], until: float) -> None:
    """One slow client after the other, until the end. Counts how many seconds each was served."""
    at_once, each_second = DRIBBLES[kind]
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
            )
        except OSError as error:
            ends[type(error).__name__] += 1
            await asyncio.sleep(1)
            continue
        with suppress(OSError):
            writer.write(at_once)
            while time.monotonic() < until:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        if not await reader.read(1 << 10):
                            break
                writer.write(each_second)
                await writer.drain()
        ends["still open" if time.monotonic() >= until else f"ended after {time.monotonic() - began:.0f} s"] += 1
        writer.close()


def _attack(
    ready: multiprocessing.connection.Connection, port: int, authority: str | None, kind: str, seconds: float
) -> None:
    """In a process of its own, so that it does not slow down those who measure."""

    async def run() -> Counter[str]:
        tls = ssl.create_default_context(cafile=authority) if authority else None
        ends = Counter[str]()
        until = time.monotonic() + seconds
        await asyncio.gather(*(_dribble(port, tls, kind, ends, until) for _ in range(SLOW_CLIENTS)))
        return ends

    ready.send(asyncio.run(run()))


@contextmanager
def attacked(port: int, authority: Path | None, kind: str, ends: Counter[str], seconds: float) -> Iterator[None]:
    """Slow clients, from a moment before a block of so many seconds until after it; then `ends` has how they ended."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, port, authority and str(authority), kind, seconds + WARM_UP_SECONDS + 1)
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=arguments)
    process.start()
    time.sleep(WARM_UP_SECONDS)
    try:
        yield
    finally:
        if not ours.poll(REPORT_SECONDS_MAX):
            raise RuntimeError("the slow clients do not say how they ended: nothing was attacked")
        ends.update(ours.recv())
        process.join(REPORT_SECONDS_MAX)
