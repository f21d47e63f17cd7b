"""What is attacked, and the means of several attacks."""

import http.client
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import NamedTuple

SOCKET_SECONDS = 2.0
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
        connection.settimeout(SOCKET_SECONDS)
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


def post(path: str, body: bytes, headers: Mapping[str, str], target: Target) -> tuple[int, str]:
    """One request. Returns its status and its Location."""
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=SOCKET_SECONDS)
    with closing(client):
        client.request("POST", path, body, {**headers, "Authorization": target.authorization})
        answer = client.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Location", "")


def in_threads(attack: Callable[[int], None], target: Target) -> None:
    """Repeat it, with the number of the thread, in several threads."""

    def attacker(number: int) -> None:
        while not target.over:
            with suppress(OSError, http.client.HTTPException):
                attack(number)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(attacker, range(THREADS)))
