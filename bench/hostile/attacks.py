"""What an attacker does, as a table: to add an attack, write a function and a row of `ATTACKS`.

Each runs in a process of its own and repeats itself until its time is over. Being refused is what it expects.
"""

import http.client
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle

from bench.client import request
from bench.hostile.shares import ATTACKS_ON_SHARES
from bench.hostile.target import THREADS, Target, endless, in_threads, many_connections, post
from tests.support.archives import make_tar
from tests.support.costly_uploads import costly_uploads

_PIECE = 64 << 10


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
    turns = [cycle(found[first % len(found) :] + found[: first % len(found)]) for first in range(THREADS)]

    def attack(number: int) -> None:
        upload = next(turns[number])
        post("/v1/jobs?lane=bulk", upload.body, {"Content-Type": upload.content_type}, target)

    in_threads(attack, target)


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
    **ATTACKS_ON_SHARES,
}


def main() -> None:
    """`python -m bench.hostile.attacks NAME PORT AUTHORIZATION SECONDS`, in a process without torch: it begins soon."""
    name, port, authorization, seconds = sys.argv[1:]
    print("begins", flush=True)
    ATTACKS[name](Target(int(port), authorization, time.monotonic() + float(seconds)))


if __name__ == "__main__":
    main()
