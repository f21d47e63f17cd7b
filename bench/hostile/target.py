"""What is attacked, and the means of several attacks."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

SOCKET_SECONDS = 2.0
THREADS = 4
BEGINS, ENDED, FAILED, STOPPED = "begins", "ended", "failed", "stopped"  # what attackers print
_PIECE_BYTES = 64 << 10
_STATUS_LINE = b"HTTP/1.1 "


class Target:
    """`authorizations`: of valid API keys, for the attackers who have one; most use the first. `victim`: the URL of
    another server. `size`: which part of the connections and bytes an attack takes that is named with a number.
    """

    def __init__(
        self, port: int, authorizations: Sequence[str], seconds: float, *, victim: str = "", size: float = 1
    ) -> None:
        self.port = port
        self.authorizations = authorizations
        self.victim = victim
        self._seconds = seconds
        self._size = size
        self._ends: float | None = None

    @property
    def authorization(self) -> str:
        return self.authorizations[0]

    def scaled(self, number: int) -> int:
        return max(1, int(number * self._size))

    def begin(self) -> None:
        """What is to be sent has been made: the time of the attack begins, unless it has begun."""
        if self._ends is None:
            self._ends = time.monotonic() + self._seconds
            print(BEGINS, flush=True)

    @property
    def over(self) -> bool:
        return self._ends is not None and time.monotonic() > self._ends

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
    target.begin()
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
    target.begin()
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
    return _post(path, body, {**headers, "Authorization": target.authorization}, target, SOCKET_SECONDS)


def post_patiently(
    path: str, body: bytes, headers: Mapping[str, str], target: Target, seconds: float
) -> tuple[int, str]:
    """One request of many bytes: each piece may take so long. Returns its status and its Location."""
    view = memoryview(body)
    pieces = (view[at : at + _PIECE_BYTES] for at in range(0, len(view), _PIECE_BYTES))
    return _post(path, pieces, {**headers, "Content-Length": str(len(body))}, target, seconds)


def _post(
    path: str, body: bytes | Iterator[memoryview], headers: Mapping[str, str], target: Target, seconds: float
) -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=seconds)
    with closing(client):
        client.request("POST", path, body, headers)
        answer = client.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Location", "")


def exchange(connection: socket.socket, requests: Sequence[bytes]) -> None:
    """Send these requests together, and read as many responses.

    Raises:
        OSError: the server has closed the connection, or it is too slow.
    """
    connection.sendall(b"".join(requests))
    due, tail = len(requests), b""
    while due > 0:
        received = connection.recv(_PIECE_BYTES)
        if not received:
            raise ConnectionResetError
        due -= (tail + received).count(_STATUS_LINE)
        tail = (tail + received)[1 - len(_STATUS_LINE) :]


def flood(requests: Sequence[bytes], target: Target) -> None:
    """Send these requests again and again, as fast as the server answers."""

    def attack(_: int) -> None:
        with target.connect() as connection:
            while not target.over:
                exchange(connection, requests)

    in_threads(attack, target)


def in_threads(attack: Callable[[int], None], target: Target, threads: int = THREADS) -> None:
    """Repeat it, with the number of the thread, in several threads."""
    target.begin()

    def attacker(number: int) -> None:
        while not target.over:
            with suppress(OSError, http.client.HTTPException):
                attack(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(attacker, range(threads)))
