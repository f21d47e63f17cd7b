"""What an attacker does, as a table: to add an attack, write a function and a row of `ATTACKS`.

Each runs in a process of its own and repeats itself until its time is over. Being refused is what it expects.
"""

import http.client
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import NamedTuple

from bench.client import request
from tests.support.archives import make_tar
from tests.support.costly_uploads import CostlyUpload, costly_uploads

_PIECE = 64 << 10
_SOCKET_SECONDS = 2.0
THREADS = 4


class Target(NamedTuple):
    port: int
    authorization: str
    """Of a valid API key, for the attackers who have one."""
    ends: float
    """By `time.monotonic`."""

    @property
    def over(self) -> bool:
        return time.monotonic() > self.ends

    def connect(self, *, receives_bytes: int | None = None) -> socket.socket:
        """`receives_bytes`: of the kernel's buffer, which else takes a megabyte that nobody reads."""
        connection = socket.socket()
        connection.settimeout(_SOCKET_SECONDS)
        if receives_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
        try:
            connection.connect(("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        return connection


def endless(start: bytes, more: bytes, target: Target) -> None:
    """Send `start`, and `more` for as long as the server reads; then again on a new connection."""
    while not target.over:
        with suppress(OSError), target.connect() as connection:
            connection.sendall(start)
            while not target.over:
                connection.sendall(more)


def many_connections(
    count: int, start: bytes, drip: bytes, target: Target, *, receives_bytes: int | None = None
) -> None:
    """Keep so many connections open, each with a drip every second, and open those again that the server closes."""
    held = list[socket.socket]()
    while not target.over:
        with suppress(OSError):
            while len(held) < count and not target.over:
                connection = target.connect(receives_bytes=receives_bytes)
                connection.sendall(start)
                held.append(connection)
        time.sleep(1)
        for connection in list(held):
            try:
                connection.sendall(drip)
                with suppress(BlockingIOError):
                    if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                        raise ConnectionError
            except OSError:
                connection.close()
                held.remove(connection)


def reads_nothing(count: int, target: Target) -> None:
    """Ask for large results on many connections, and read none."""
    tar = make_tar({f"{n}.png": b"no picture" for n in range(5000)})
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    headers = {"Content-Type": "application/x-tar", "Authorization": target.authorization}
    client.request("POST", "/v1/jobs", tar, headers)
    answer = client.getresponse()
    answer.read()
    path = f"{answer.headers['Location']}/results?format=ndjson"
    asks = request("GET", path, b"", Authorization=target.authorization) * 4  # more than the server's kernel takes
    many_connections(count, asks, b"", target, receives_bytes=4096)


def uploads(kind: str, target: Target) -> None:
    """Send the uploads of one kind whose cost is not in their bytes, one after the other."""
    found = [make() for name, make in costly_uploads().items() if name.startswith(kind)]

    def attacker(number: int) -> None:
        for upload in cycle(found[number % len(found) :] + found[: number % len(found)]):
            if target.over:
                return
            with suppress(OSError, http.client.HTTPException):
                _post(upload, target)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(attacker, range(THREADS)))


def _post(upload: CostlyUpload, target: Target) -> None:
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_SOCKET_SECONDS)
    headers = {"Content-Type": upload.content_type, "Authorization": target.authorization}
    try:
        client.request("POST", "/v1/jobs?lane=bulk", upload.body, headers)
        client.getresponse().read()
    finally:
        client.close()


_HEAD = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = b"POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

ATTACKS: dict[str, Callable[[Target], None]] = {
    # Without an API key
    "headers without end": partial(endless, _HEAD, b"a:b\r\n" * (_PIECE // 5)),
    "one header without end": partial(endless, _HEAD + b"a: ", b"b" * _PIECE),
    "a URL without end": partial(endless, b"GET /", b"b" * _PIECE),
    "requests without end, of which no response is read": partial(endless, b"", (_HEAD + b"\r\n") * 1000),
    "chunks of a byte without end": partial(endless, _CHUNKED, b"1\r\nx\r\n" * 10_000),
    "1,100 connections that send nothing": partial(many_connections, 1100, b"", b""),
    "1,100 connections whose headers drip": partial(many_connections, 1100, _HEAD, b"a"),
    # With one
    "200 clients that do not read results": partial(reads_nothing, 200),
    "tars that cost more than their bytes": partial(uploads, "tar"),
    "forms that cost more than their bytes": partial(uploads, "form"),
    "URLs that cost more than their bytes": partial(uploads, "URLs"),
    "zips that cost more than their bytes": partial(uploads, "zip"),
}


def main() -> None:
    """`python -m bench.hostile.attacks NAME PORT AUTHORIZATION SECONDS`, in a process without torch: it begins soon."""
    name, port, authorization, seconds = sys.argv[1:]
    print("begins", flush=True)
    ATTACKS[name](Target(int(port), authorization, time.monotonic() + float(seconds)))


if __name__ == "__main__":
    main()
