"""The edge in front of a real API, and clients that are slow, or send what they should not."""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.deploy.edge import KEY, Edge
from tests.support.deploy.smuggling import LAST, SHAPES
from tests.support.stack import Stack
from tests.support.waiting import wait_until


def seconds_until_closed(connection: socket.socket, dribble: bytes) -> None:
    """Send these bytes again and again until the other side closes the connection."""
    connection.settimeout(0.2)

    def closed() -> bool:
        with suppress(TimeoutError):
            return connection.recv(1 << 10) == b""
        connection.sendall(dribble)
        return False

    with connection, suppress(OSError):
        wait_until(closed, seconds=40, what="the end of a connection")


def test_connections_with_slow_headers_end(edge: Edge) -> None:
    """Over TLS, on the port without it, and before the handshake."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    secure, plain = edge.connect(), socket.create_connection(("127.0.0.1", edge.http_port))
    silent = socket.create_connection(("127.0.0.1", edge.port))
    secure.sendall(head)
    plain.sendall(head)
    with ThreadPoolExecutor(3) as threads:
        ends = [threads.submit(seconds_until_closed, *it) for it in ((secure, b"a: b\r\n"), (plain, b"a: b\r\n"))]
        ends.append(threads.submit(seconds_until_closed, silent, b""))
        for end in ends:
            end.result()


def test_the_api_gives_up_on_a_slow_body(stack: Stack, tmp_path: Path) -> None:
    """`UPLOAD_SECONDS_MAX` is a second here. The edge passes the answer on once it has read the body."""
    api = stack.api(UPLOAD_SECONDS_MAX="1")
    received = b""
    with Edge(f"127.0.0.1:{api.port}", tmp_path) as edge, edge.connect() as connection:
        headers = f"Host: localhost\r\nContent-Type: image/png\r\nContent-Length: 20\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"POST /v1/jobs HTTP/1.1\r\n{headers}\r\n".encode())
        connection.settimeout(0.2)
        for _ in range(20):
            connection.sendall(b"x")
            with suppress(TimeoutError):
                received += connection.recv(1 << 10)
    assert b"HTTP/1.1 408" in received


def test_oversized_headers_are_refused_at_the_edge(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Long": "x" * 8_000}).status_code == 200
    with pytest.raises(httpx.HTTPStatusError) as refused:
        client.get("/livez", headers={"X-Long": "x" * 64_000}).raise_for_status()
    assert refused.value.response.status_code == 431
    assert "x-request-id" not in refused.value.response.headers, "the API gives each of its answers an id"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_hidden_in_anothers_body_is_not_taken_for_one(
    edge: Edge, client: httpx.Client, stack: Stack, shape: str
) -> None:
    """Edge and API agree where a request ends: each job that is made was answered to the one who asked."""
    headers, body = SHAPES[shape]
    before = stack.stat("accepted")
    with edge.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + body + LAST)
        connection.settimeout(3)  # some shapes leave the edge waiting for the rest of a body
        received = b""
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                received += data
    answered = re.findall(rb"^HTTP/1\.1 (\d+)", received, re.MULTILINE)
    assert answered[0] in (b"400", b"401", b"501", b"502"), received
    for _ in range(3):  # on the edge's connection to the API, what was left of a body would come first
        assert client.get("/livez").json() == {"status": "ok"}
    assert stack.stat("accepted") - before == answered.count(b"202")


async def test_a_request_whose_body_is_broken_is_not_sent_again(tmp_path: Path) -> None:
    """By default the edge would send it to the API sixty times in 15 s."""
    heads = list[bytes]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the edge may find the fault before it has sent the head
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.read()
        writer.close()

    def send(edge: Edge) -> bytes:
        with edge.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
            return connection.recv(1 << 10)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        with Edge(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path) as edge:
            assert (await asyncio.to_thread(send, edge)).startswith(b"HTTP/1.1 502")
    assert len(heads) <= 1
