"""What an attacker does, as a table: to add an attack, write a function and a row of `ATTACKS`.

Each runs in a process of its own and repeats itself until its time is over. Being refused is what it expects.
"""

import http.client
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import orjson

from bench.client import request
from bench.hostile.pictures import ATTACKS_BY_PICTURES
from bench.hostile.shares import ATTACKS_ON_SHARES
from bench.hostile.target import ENDED, FAILED, STOPPED, Target, endless, flood, many_connections
from bench.hostile.uploads import COSTLY_UPLOADS, LARGE_UPLOADS, URLS, urls_of_one_host
from bench.hostile.victim import BUSY, IMAGE
from tests.support.archives import make_tar

_PIECE = 64 << 10
_READERS = 1500


def reads_nothing(target: Target) -> None:
    """Ask for large results on many connections, and read none."""
    tar = make_tar({f"{n}.png": b"no picture" for n in range(target.scaled(5000))})
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    headers = {"Content-Type": "application/x-tar", "Authorization": target.authorization}
    client.request("POST", "/v1/jobs", tar, headers)
    answer = client.getresponse()
    assert answer.status == 202, answer.read()
    path = f"{answer.headers['Location']}/results?format=ndjson"
    asks = request("GET", path, b"", Authorization=target.authorization) * 4  # more than the server's kernel takes
    many_connections(target.scaled(_READERS), asks, b"", target, receives_bytes=4096)


def wrong_keys() -> list[bytes]:
    return [request("GET", "/v1/jobs", b"", Authorization=f"Bearer wrong-key-{n:016}") for n in range(32)]


def idle(count: int, start: bytes, drip: bytes, target: Target) -> None:
    many_connections(target.scaled(count), start, drip, target)


_HEAD = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = b"POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

ATTACKS: dict[str, Callable[[Target], None]] = {
    # Without an API key
    "headers without end": partial(endless, _HEAD, b"a:b\r\n" * (_PIECE // 5)),
    "one header without end": partial(endless, _HEAD + b"a: ", b"b" * _PIECE),
    "a URL without end": partial(endless, b"GET /", b"b" * _PIECE),
    "requests without end, of which no response is read": partial(endless, b"", (_HEAD + b"\r\n") * 1000),
    "chunks of a byte without end": partial(endless, _CHUNKED, b"1\r\nx\r\n" * 10_000),
    "1,100 connections that send nothing": partial(idle, 1100, b"", b""),
    "1,100 connections whose headers drip": partial(idle, 1100, _HEAD, b"a"),
    "a flood of /readyz": partial(flood, [request("GET", "/readyz", b"")] * 32),
    "a flood of wrong keys": partial(flood, wrong_keys()),
    # With one
    f"{_READERS:,} clients that do not read results": reads_nothing,
    **COSTLY_UPLOADS,
    **ATTACKS_BY_PICTURES,
    f"lists of {URLS:,} URLs of one host": partial(urls_of_one_host, IMAGE),
    f"lists of {URLS:,} URLs of a host that asks for a pause": partial(urls_of_one_host, BUSY),
    **LARGE_UPLOADS,
    **ATTACKS_ON_SHARES,
}
"""Those that keep what they got come last."""


def main() -> None:
    """Start the attack that each line of stdin describes, and end it at an empty one, or with stdin.

    In a process without torch, which begins soon; attacks are forks of it, and begin at once.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for line in sys.stdin.buffer:
        order = orjson.loads(line)
        pid = os.fork()
        if pid == 0:
            _attack(order.pop("name"), Target(**order))
        try:
            sys.stdin.buffer.readline()
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        print(STOPPED, flush=True)


def _attack(name: str, target: Target) -> NoReturn:
    """Never returns to the loop of the process that was forked."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other processes, and they end this one
    status = 1
    try:
        ATTACKS[name](target)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        print(FAILED if status else ENDED, flush=True)
        os._exit(status)


if __name__ == "__main__":
    main()
