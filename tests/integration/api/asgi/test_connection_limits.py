"""What a client may send before a body, how slowly, and how slowly it may read; in a process of its own."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.api.asgi.test_wire import (
    connected,
    ended,
    first_piece,
    read_response,
    request,
    split_response,
    to_the_end,
)
from tests.support.processes import MAXMEMORY_BYTES, Api, Valkey
from tests.support.store import Store
from tests.support.waiting import eventually, wait_until

HASTY = {  # seconds and bytes, so that no test waits for long
    "REQUEST_FIRST_BYTE_SECONDS_MAX": "1",
    "REQUEST_HEAD_SECONDS_MAX": "1",
    "RESPONSE_IDLE_SECONDS_MAX": "1",
}
ENDLESS = 40 << 20
CHUNKED = request("/v1/jobs", "Transfer-Encoding: chunked", method="POST")


@pytest.fixture(scope="module")
def process(_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with _valkey.client as client:
        client.config_set("maxmemory", MAXMEMORY_BYTES)
    with Api(_valkey.url, tmp_path_factory.mktemp("api") / "log", **HASTY) as api:
        yield api
        assert "Traceback" not in api.output()


def send_until_refused(connection: socket.socket, start: bytes, more: bytes) -> int:
    """Send the start, and then `more` again and again until the server reads no more. Returns the bytes sent."""
    sent = 0
    try:
        connection.sendall(start)
        while sent < ENDLESS:
            connection.sendall(more)
            sent += len(more)
    except ConnectionError:
        pass
    return sent


def access_line(api: Api, answer: bytes) -> str:
    """The line of the access log for a response."""
    start = f"request_id={split_response(answer)[1]['x-request-id']} "

    def line() -> str:
        return next((it for it in api.output().splitlines() if start in it), "")

    wait_until(lambda: bool(line()), what="the line of the response")
    return line().partition(start)[2]


def problem_of(answer: bytes) -> tuple[int, str]:
    status, headers, body = split_response(answer)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    problem = json.loads(body)
    assert problem["status"] == int(status.split()[1])
    return problem["status"], problem["code"]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (request("/livez", *(f"a{n}: b" for n in range(100))), (431, "headers_too_large")),  # and Host
        (request("/livez", "a: " + "b" * (33 << 10)), (431, "headers_too_large")),
        (request("/livez", *(f"a{n}: {'b' * 1000}" for n in range(40))), (431, "headers_too_large")),
        (request("/livez?" + "a" * (8 << 10)), (414, "url_too_long")),
        (b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n", (400, "malformed_request")),
        (CHUNKED + b"1;" + b"a" * (64 << 10), (431, "headers_too_large")),  # the size of a chunk
        (CHUNKED + b"0\r\n" + b"a:b\r\n" * 14_000, (431, "headers_too_large")),  # its trailers
        (CHUNKED + b"no size\r\n", (400, "malformed_request")),
    ],
)
def test_a_head_that_is_too_large_is_refused_and_says_why(
    valkey: Valkey, process: Api, head: bytes, expected: tuple[int, str]
) -> None:
    with connected(process) as connection:
        connection.sendall(head)
        assert problem_of(to_the_end(connection)) == expected


@pytest.mark.parametrize(
    "path_and_headers",
    [
        ("/livez", *(f"a{n}: b" for n in range(99))),
        ("/livez", "a: " + "b" * (31 << 10)),
        ("/livez?" + "a" * ((8 << 10) - 7),),
    ],
)
def test_a_head_within_the_limits_is_read(valkey: Valkey, process: Api, path_and_headers: tuple[str, ...]) -> None:
    with connected(process) as connection, connection.makefile("rb") as stream:
        for _ in range(2):
            connection.sendall(request(*path_and_headers))
            assert read_response(stream)[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /livez HTTP/1.1\r\n", b"a:b\r\n" * 10_000),
        (b"GET /livez HTTP/1.1\r\na: ", b"b" * 65_536),
        (b"GET /livez HTTP/1.1\r\n", b"b" * 65_536),
        (b"GET /", b"b" * 65_536),
        (b"\r\n", b"\r\n" * 10_000),
    ],
)
def test_a_head_without_end_is_not_kept(valkey: Valkey, process: Api, start: bytes, more: bytes) -> None:
    with connected(process) as connection:
        assert send_until_refused(connection, start, more) < ENDLESS


def test_a_connection_on_which_nothing_arrives_is_closed(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        assert to_the_end(connection) == b""


@pytest.mark.parametrize("begins_with", [b"", request("/livez")])
def test_a_head_that_is_not_complete_in_time_is_refused(valkey: Valkey, process: Api, begins_with: bytes) -> None:
    with connected(process) as connection:
        if begins_with:
            connection.sendall(begins_with)
            first_piece(connection)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: da")
        assert problem_of(to_the_end(connection)) == (408, "request_timeout")


@pytest.mark.parametrize("rest", [b"a", b"a" * 100 + b"\r\n"])
def test_the_rest_of_a_body_that_nobody_reads_keeps_no_connection(valkey: Valkey, process: Api, rest: bytes) -> None:
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(request("/nowhere", "Content-Length: 100", method="POST"))
        assert read_response(stream)[0] == b"HTTP/1.1 404 Not Found"
        connection.sendall(rest)  # uvicorn ends its own clock here, and starts no other
        assert stream.read() == b""


def test_a_connection_between_two_requests_is_kept(valkey: Valkey, process: Api) -> None:
    """For longer than a head may take: another connection that sends nothing is closed first."""
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(request("/livez"))
        read_response(stream)
        for _ in range(2):
            with connected(process) as silent:
                to_the_end(silent)
        connection.sendall(request("/livez"))
        assert read_response(stream)[0] == b"HTTP/1.1 200 OK"


def test_a_client_that_sends_without_end_and_reads_nothing_is_read_no_more(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        assert send_until_refused(connection, b"", request("/livez") * 1000) < ENDLESS


def test_many_requests_and_bodies_of_small_chunks_are_read_in_turns(valkey: Valkey, process: Api, shirt: bytes) -> None:
    """Each of these is more than is parsed in one go."""
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in shirt) * 20  # no picture, but as many bytes as twenty
    large = CHUNKED.removesuffix(b"\r\n") + b"Content-Type: image/png\r\n\r\n" + chunks + b"0\r\n\r\n"
    data = (request("/livez") * 500 + large) * 3
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(data)
        for _ in range(3):
            assert [read_response(stream)[0] for _ in range(500)] == [b"HTTP/1.1 200 OK"] * 500
            assert read_response(stream)[0] == b"HTTP/1.1 202 Accepted"


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (
            request("/v1/jobs?secret=1", "Content-Length: 12", "a: " + "b" * (33 << 10), method="POST"),
            "owner=- method=POST path=/v1/jobs status=431 code=headers_too_large bytes=12 ",
        ),
        (
            request("/livez?" + "a" * (8 << 10)),
            "owner=- method=GET path=/livez status=414 code=url_too_long bytes=- ",
        ),
        (
            b"GET http://user:secret@host/ HTTP/1.1\r\nno colon\r\n\r\n",
            "owner=- method=GET path=- status=400 code=malformed_request bytes=- ",
        ),
        (b"\0\r\n\r\n", "owner=- method=- path=- status=400 code=malformed_request bytes=- "),
        (b"GET /liv", "owner=- method=GET path=/liv status=408 code=request_timeout bytes=- "),
    ],
)
def test_a_refused_request_has_a_line_in_the_access_log(valkey: Valkey, process: Api, head: bytes, line: str) -> None:
    with connected(process) as connection:
        connection.sendall(head)
        written = access_line(process, to_the_end(connection))
    assert re.fullmatch(re.escape(line) + r"ms=\d+\.\d", written)
    assert "secret" not in process.output()


def open_files(process: Api) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def unread(stack: ExitStack, api: Api, asks: bytes) -> None:
    """A connection that asks and does not read."""
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", api.port))
    connection.sendall(asks)


async def test_a_client_that_does_not_read_is_cut_off(store: Store, process: Api) -> None:
    path = await ended(store, 5000)
    before = open_files(process)
    with ExitStack() as stack:
        asks = request(f"{path}/results", "Accept: application/x-ndjson")
        unread(stack, process, asks * 8)  # more than the kernel's buffers take
        await eventually(lambda: open_files(process) > before, what="the connection")
        await eventually(lambda: open_files(process) == before, what="its end")


async def test_results_that_are_not_read_are_bounded_in_number(store: Store, valkey: Valkey, tmp_path: Path) -> None:
    large, small = await ended(store, 5000), await ended(store, 3)
    with Api(valkey.url, tmp_path / "log", HELD_STREAMS_MAX="4") as api, ExitStack() as stack:
        asks = request(f"{large}/results", "Accept: application/x-ndjson")

        def status(path: str) -> int:
            with connected(api) as connection, connection.makefile("rb") as stream:
                connection.sendall(request(f"{path}/results?format=ndjson", "Connection: close"))
                line: bytes = stream.readline()
                return int(line.split()[1])

        assert status(large) == 200
        for _ in range(4):
            unread(stack, api, asks * 16)  # more than the kernel's buffers take
        await eventually(lambda: status(large) == 503, what="a refusal")
        assert status(small) == 200
        stack.close()
        await eventually(lambda: status(large) == 200, what="a free place")


@pytest.fixture
def api_of_two(_valkey: Valkey, valkey: Valkey, tmp_path: Path) -> Iterator[Api]:
    with Api(valkey.url, tmp_path / "log", CONNECTIONS_PER_ADDRESS_MAX="2") as api:
        yield api


def test_an_address_has_its_share_of_the_connections(api_of_two: Api) -> None:
    def answer() -> bytes:
        with connected(api_of_two) as connection:
            connection.sendall(request("/livez", "Connection: close"))
            return to_the_end(connection)

    with connected(api_of_two), connected(api_of_two), connected(api_of_two) as third:
        refused = to_the_end(third)
    assert problem_of(refused) == (503, "too_many_connections")
    assert access_line(api_of_two, refused).startswith("owner=- method=- path=- status=503 code=too_many_connections ")
    wait_until(lambda: answer().startswith(b"HTTP/1.1 200"), what="a free place")


def test_the_limit_of_open_files_is_raised(valkey: Valkey, tmp_path: Path) -> None:
    api = Api(valkey.url, tmp_path / "log")
    api.arguments = ["bash", "-c", 'ulimit -Sn 128; exec "$@"', "bash", *api.arguments]
    with api:
        limits = Path(f"/proc/{api.pid}/limits").read_text().splitlines()
        soft, hard = next(line for line in limits if line.startswith("Max open files")).split()[3:5]
        assert soft == hard != "128"
