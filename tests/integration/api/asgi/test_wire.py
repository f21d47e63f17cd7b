"""Responses as bytes on a socket, from an API in a process of its own with uvloop and `DarkroomProtocol`."""

import asyncio
import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import takewhile
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest

from api.asgi.uvicorn_protocol import _CoalescingTransport
from jobs.ids import to_text
from tests.support.processes import MAXMEMORY_BYTES, Api, Valkey
from tests.support.store import Store
from tests.support.waiting import eventually

SECONDS = 30
TRIES = 20  # a response in two packets would fail only now and then


@pytest.fixture(scope="module")
def process(_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with _valkey.client as client:
        client.config_set("maxmemory", MAXMEMORY_BYTES)  # an earlier test may have changed it
    with Api(_valkey.url, tmp_path_factory.mktemp("api") / "log") as api:
        yield api
        assert "Traceback" not in api.output()


@contextmanager
def connected(process: Api) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", process.port), timeout=SECONDS) as connection:
        yield connection


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def first_piece(connection: socket.socket) -> bytes:
    """What one read returns once the socket is readable."""
    readable, _, _ = select.select([connection], [], [], SECONDS)
    assert readable
    return connection.recv(65_536)


def to_the_end(connection: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    pieces = list[bytes]()
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def split_response(answer: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Status line, headers, body."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    assert blank
    status, *lines = head.decode("latin-1").split("\r\n")
    return status.encode(), {name.lower(): value for name, _, value in (it.partition(": ") for it in lines)}, body


def read_response(stream: BinaryIO, *, with_body: bool = True) -> tuple[bytes, dict[str, str], bytes]:
    """`split_response` for the next one of several responses on a connection."""
    head = b"".join(takewhile(lambda line: line not in (b"\r\n", b""), stream))  # a stream yields lines until its end
    status, headers, _ = split_response(head + b"\r\n")
    return status, headers, stream.read(int(headers["content-length"])) if with_body else b""


async def ended(store: Store, items: int) -> str:
    """The path of an ended job with this number of images."""
    job_id = await store.submit(*[b"image"] * items, chunk_items=64)
    number = 0
    while (lease := store.claim(number)).chunks:
        store.finish(lease)
        number += 1
    return f"/v1/jobs/{to_text(job_id)}"


@pytest.mark.parametrize("path", ["/livez", "/v1/jobs", "/v1/jobs/not-an-id", "/v1/models"])
def test_a_response_arrives_in_one_piece(valkey: Valkey, process: Api, path: str) -> None:
    with connected(process) as connection:
        for _ in range(TRIES):
            connection.sendall(request(path))
            _, headers, body = split_response(first_piece(connection))
            assert len(body) == int(headers["content-length"]) > 0
            json.loads(body)


def test_the_response_to_a_submit_arrives_in_one_piece(valkey: Valkey, process: Api, shirt: bytes) -> None:
    head = request("/v1/jobs", "Content-Type: image/png", f"Content-Length: {len(shirt)}", method="POST")
    with connected(process) as connection:
        for _ in range(TRIES):
            connection.sendall(head + shirt)
            status, headers, body = split_response(first_piece(connection))
            assert status == b"HTTP/1.1 202 Accepted"
            assert headers["location"] == json.loads(body)["links"]["self"]


async def test_the_response_to_a_wait_arrives_in_one_piece(store: Store, process: Api, shirt: bytes) -> None:
    length = f"Content-Length: {len(shirt)}"
    with connected(process) as connection:
        for _ in range(3):
            connection.sendall(
                request("/v1/jobs", "Content-Type: image/png", "Prefer: wait=30", length, method="POST") + shirt
            )
            lease = await store.claimed()
            store.finish(lease)
            await eventually(lambda: select.select([connection], [], [], 0)[0], what="the response")
            status, headers, body = split_response(connection.recv(65_536))
            assert (status, len(body)) == (b"HTTP/1.1 200 OK", int(headers["content-length"]))
            assert json.loads(body)["status"] == "completed"


def test_the_response_to_head_arrives_without_a_body(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(request("/v1/jobs", method="HEAD") + request("/livez"))
        status, headers, _ = read_response(stream, with_body=False)
        assert (status, int(headers["content-length"]) > 0) == (b"HTTP/1.1 200 OK", True)
        status, _, body = read_response(stream)
        assert (status, json.loads(body)) == (b"HTTP/1.1 200 OK", {"status": "ok"}), "the next response follows"


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/nothing-here"])
def test_connection_close_closes_after_the_whole_response(valkey: Valkey, process: Api, path: str) -> None:
    with connected(process) as connection:
        connection.sendall(request(path, "Connection: close"))
        _, headers, body = split_response(to_the_end(connection))
    assert headers["connection"] == "close"
    assert len(body) == int(headers["content-length"]) > 0


def test_connection_close_closes_after_the_whole_head_of_a_head_request(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        connection.sendall(request("/v1/models", "Connection: close", method="HEAD"))
        status, headers, body = split_response(to_the_end(connection))
    assert (status, body) == (b"HTTP/1.1 200 OK", b"")
    assert int(headers["content-length"]) > 0


async def test_a_large_response_arrives_whole_and_after_its_head(store: Store, process: Api) -> None:
    path = await ended(store, 1000)
    with connected(process) as connection:
        connection.sendall(request(f"{path}/results?limit=1000", "Connection: close"))
        status, headers, body = split_response(to_the_end(connection))
    assert status == b"HTTP/1.1 200 OK"
    assert len(body) == int(headers["content-length"]) > 100_000
    assert [item["index"] for item in json.loads(body)["items"]] == list(range(1000))


@pytest.mark.parametrize("close", [True, False])
async def test_a_stream_of_a_megabyte_arrives_whole(store: Store, process: Api, *, close: bool) -> None:
    path = await ended(store, 5000)
    headers = {"Accept": "application/x-ndjson"} | ({"Connection": "close"} if close else {})
    connection = HTTPConnection("127.0.0.1", process.port, timeout=SECONDS)
    connection.request("GET", f"{path}/results", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert len(body) > 1_000_000
    assert [json.loads(line)["index"] for line in body.splitlines()] == list(range(5000))


def test_pending_data_of_a_closed_connection_is_dropped() -> None:
    class Gone:
        def __init__(self) -> None:
            self.closing = False
            self.written = list[bytes]()

        def is_closing(self) -> bool:
            return self.closing

        def write(self, data: bytes) -> None:
            assert not self.closing, "uvloop raises here"
            self.written.append(data)

    gone, turn = Gone(), list[Callable[[], None]]()
    loop = SimpleNamespace(call_soon=turn.append)
    coalescing = _CoalescingTransport(cast("asyncio.Transport", gone), cast("asyncio.AbstractEventLoop", loop))
    coalescing.write(b"first")
    turn.pop()()
    coalescing.write(b"second")
    gone.closing = True
    turn.pop()()
    assert gone.written == [b"first"]


def test_requests_of_one_packet_are_answered_in_order(valkey: Valkey, process: Api) -> None:
    paths = ["/livez", "/v1/jobs/not-an-id", "/v1/jobs", "/livez"]
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(request(path, f"X-Request-Id: {n}") for n, path in enumerate(paths)))
        answers = [read_response(stream) for _ in paths]
    assert [(headers["x-request-id"], status.split()[1], bool(body)) for status, headers, body in answers] == [
        ("0", b"200", True),
        ("1", b"404", True),
        ("2", b"200", True),
        ("3", b"200", True),
    ]


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n"]
)
def test_garbage_is_answered_with_400_and_the_connection_closed(valkey: Valkey, process: Api, garbage: bytes) -> None:
    with connected(process) as connection:
        connection.sendall(garbage)
        status, _, body = split_response(to_the_end(connection))
    assert status == b"HTTP/1.1 400 Bad Request"
    assert json.loads(body)["code"] == "malformed_request"


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_a_request_for_another_protocol_is_answered_as_any_other_and_not_logged(
    valkey: Valkey, process: Api, protocol: str
) -> None:
    """Anybody can send it: no API key has been checked yet."""
    before = process.output()
    with connected(process) as connection, connection.makefile("rb") as stream:
        for _ in range(2):
            connection.sendall(request("/livez", "Connection: Upgrade", f"Upgrade: {protocol}"))
            assert read_response(stream)[0] == b"HTTP/1.1 200 OK"
    assert process.output() == before


def test_a_client_that_expects_100_continue_gets_it_before_it_sends(valkey: Valkey, process: Api, shirt: bytes) -> None:
    headers = ("Content-Type: image/png", f"Content-Length: {len(shirt)}", "Expect: 100-continue")
    with connected(process) as connection:
        connection.sendall(request("/v1/jobs", *headers, method="POST"))
        assert first_piece(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(shirt)
        status, _, _ = split_response(first_piece(connection))
    assert status == b"HTTP/1.1 202 Accepted"


async def test_a_client_that_reads_slowly_gets_all_of_a_stream(store: Store, process: Api) -> None:
    path = await ended(store, 5000)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the server's send buffer fills up
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", process.port))
        connection.sendall(request(f"{path}/results", "Accept: application/x-ndjson"))
        with HTTPResponse(connection) as answer:
            answer.begin()
            body = answer.read()
    assert len(body.splitlines()) == 5000
