"""A page of an allowed origin can read each refusal and its `Retry-After`, whichever part of the API answers."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from jobs.store.for_api.job_reader import JobReader
from tests.integration.api.asgi.test_wire import connected, read_response, request, to_the_end
from tests.integration.api.conftest import StartApi
from tests.support.processes import MAXMEMORY_BYTES, Api, Valkey
from tests.support.waiting import wait_until

ORIGIN = "https://app.example.com"
ORIGINS = ["https://other.example.com", ORIGIN]  # of several, a response names the one that asks
FROM_PAGE = f"Origin: {ORIGIN}"
PNG = "Content-Type: image/png"
SETTINGS = {
    "CORS_ORIGINS": json.dumps(ORIGINS),
    "REQUEST_HEAD_SECONDS_MAX": "1",
    "UPLOAD_IDLE_SECONDS_MAX": "1",
    "OWNER_PENDING_ITEMS_MAX": "1",
}
ASKS_FIRST = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")

StartOther = Callable[..., Api]


@pytest.fixture(scope="module")
def process(_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with _valkey.client as client:
        client.config_set("maxmemory", MAXMEMORY_BYTES)
    with Api(_valkey.url, tmp_path_factory.mktemp("api") / "log", **SETTINGS) as api:
        yield api
        assert "Traceback" not in api.output()


@pytest.fixture
def start_other(valkey: Valkey, tmp_path: Path) -> Iterator[StartOther]:
    with ExitStack() as stack:

        def start(**settings: str) -> Api:
            return stack.enter_context(Api(valkey.url, tmp_path / "log", **(SETTINGS | settings)))

        yield start


def read_by_page(answer: bytes, origin: str = ORIGIN) -> tuple[int, str]:
    """Status and code, after a check that a browser would show them to the page."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert [value for name, value in headers if name == "access-control-allow-origin"] == [origin]
    (exposed,) = (value for name, value in headers if name == "access-control-expose-headers")
    assert {"Retry-After", "X-Request-Id"} <= set(exposed.split(", "))
    if origin != "*":
        assert ("vary", "Origin") in headers
    problem = json.loads(body)
    assert status.split()[1] == str(problem["status"])
    if problem["status"] in (429, 503):
        assert int(dict(headers)["retry-after"]) > 0
    return problem["status"], problem["code"]


def answer_to(process: Api, *pieces: bytes) -> bytes:
    with connected(process) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return to_the_end(connection)


def closing(path: str, *headers: str, method: str = "GET") -> bytes:
    return request(path, FROM_PAGE, "Connection: close", *headers, method=method)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (closing("/nowhere"), (404, "not_found")),
        (closing("/v1/jobs/x"), (404, "job_not_found")),
        (closing("/v1/jobs", method="PATCH"), (405, "method_not_allowed")),
        (closing("/docs/assets/nothing.js"), (404, "not_found")),
        (closing("/v1/jobs", PNG, "Content-Length: 0", method="POST"), (422, "invalid_request")),
        (closing("/v1/jobs").replace(b"localhost", b"evil.example.com"), (421, "wrong_host")),
        (closing("/v1/jobs", PNG, "Content-Length: 9", method="POST") + b"to", (408, "upload_timeout")),
        (request("/livez", FROM_PAGE, *(f"a{n}: b" for n in range(100))), (431, "headers_too_large")),
        (request("/livez", *(f"a{n}: b" for n in range(100)), FROM_PAGE), (431, "headers_too_large")),
        (request("/livez", "a: " + "b" * (33 << 10), FROM_PAGE), (431, "headers_too_large")),
        (request("/livez", "a: " + "b" * (500 << 10), FROM_PAGE), (431, "headers_too_large")),
        (request("/livez", *(f"a{n}: {'b' * 1000}" for n in range(500)), FROM_PAGE), (431, "headers_too_large")),
        (request("/livez?" + "a" * (9 << 10), FROM_PAGE), (414, "url_too_long")),
        (request("/livez?" + "a" * (500 << 10), FROM_PAGE), (414, "url_too_long")),
        (request("/livez", FROM_PAGE, "a: b").removesuffix(b"\r\n"), (408, "request_timeout")),
        (request("/livez", FROM_PAGE, "no colon"), (400, "malformed_request")),
        (request("/livez", "no colon", FROM_PAGE), (400, "malformed_request")),
        (
            request("/v1/jobs", FROM_PAGE, "Transfer-Encoding: chunked", method="POST") + b"no size\r\n",
            (400, "malformed_request"),
        ),
    ],
)
def test_a_page_can_read_a_refusal(valkey: Valkey, process: Api, sent: bytes, expected: tuple[int, str]) -> None:
    assert read_by_page(answer_to(process, sent)) == expected


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_origin_is_found_in_a_head_that_comes_in_pieces(valkey: Valkey, process: Api, size: int) -> None:
    head = request("/livez", "a: " + "b" * (41 << 10))[:-2]  # refused before what follows
    rest = f"oRIGIN:\t{ORIGIN} \r\nb: c\r\n\r\n".encode()
    with connected(process) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head)
        for at in range(0, len(rest), size):
            connection.sendall(rest[at : at + size])
        assert read_by_page(to_the_end(connection)) == (431, "headers_too_large")


def test_a_head_that_is_refused_is_not_waited_for_without_end(valkey: Valkey, process: Api) -> None:
    for head in (b"GET /livez HTTP/1.1\r\na: " + b"b" * (41 << 10), b"GET /livez HTTP/1.1\r\na: " + b"b" * (2 << 20)):
        with connected(process) as connection:
            try:
                connection.sendall(head)
                answer = to_the_end(connection)
            except ConnectionError:  # it sends far more than is read
                continue
        assert b"headers_too_large" in answer
        assert b"allow-origin" not in answer


def test_a_page_of_another_origin_reads_nothing(valkey: Valkey, process: Api) -> None:
    for sent in (b"a: " + b"b" * (33 << 10), b"Connection: close"):
        head = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example.com\r\n" + sent + b"\r\n\r\n"
        answer = answer_to(process, head)
        assert b"allow-origin" not in answer
        assert b"vary: Origin\r\n" in answer


def test_a_page_can_read_that_it_has_too_many_images(valkey: Valkey, process: Api, shirt: bytes) -> None:
    head = request("/v1/jobs", FROM_PAGE, PNG, f"Content-Length: {len(shirt)}", method="POST")
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(head + shirt)
        assert read_response(stream)[0] == b"HTTP/1.1 202 Accepted"
    sent = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + shirt
    assert read_by_page(answer_to(process, sent)) == (429, "quota_exceeded")


def test_a_page_can_read_that_its_key_is_wrong(start_other: StartOther) -> None:
    other = start_other(API_KEYS='{"alice": "alice-key-0123456789"}')
    assert read_by_page(answer_to(other, closing("/v1/jobs"))) == (401, "unauthorized")
    wrong = "Authorization: Bearer alice-key-0000000000"
    assert read_by_page(answer_to(other, closing("/v1/jobs", wrong))) == (401, "unauthorized")


def test_a_page_can_read_that_too_many_connections_are_open(start_other: StartOther) -> None:
    other = start_other(CONNECTIONS_PER_ADDRESS_MAX="1")
    with connected(other) as one:
        one.sendall(request("/livez"))  # the server has taken it once it answers
        assert one.recv(1)
        assert read_by_page(answer_to(other, request("/livez", FROM_PAGE))) == (503, "too_many_connections")
        asked = answer_to(other, request("/livez", FROM_PAGE, *ASKS_FIRST, method="OPTIONS"))
        assert asked.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"access-control-allow-origin: {ORIGIN}\r\n".encode() in asked
        assert b"access-control-allow-headers: authorization\r\n" in asked
        silent = answer_to(other)
        assert b"too_many_connections" in silent
        assert b"allow-origin" not in silent
    wait_until(lambda: httpx.get(f"{other.url}/livez").is_success, what="a free place")


def test_a_browser_that_asks_first_learns_that_it_may_send_what_is_refused(valkey: Valkey, process: Api) -> None:
    for path in ("/livez?" + "a" * (9 << 10), "/livez?" + "a" * (100 << 10)):
        asked = answer_to(process, request(path, FROM_PAGE, *ASKS_FIRST, method="OPTIONS"))
        assert asked.startswith(b"HTTP/1.1 200 OK\r\n")
        assert asked.lower().count(b"access-control-allow-origin") == 1
        other = request(path, "Origin: https://evil.example.com", *ASKS_FIRST, method="OPTIONS")
        assert b"preflight_refused" in answer_to(process, other)


def test_pages_of_all_origins_can_read_refusals(start_other: StartOther) -> None:
    other = start_other(CORS_ORIGINS='["*"]', CONNECTIONS_PER_ADDRESS_MAX="1")
    for sent in (closing("/nowhere"), request("/livez?" + "a" * (100 << 10), FROM_PAGE)):
        assert read_by_page(answer_to(other, sent), "*")[0] in (404, 414)
    with connected(other) as one:
        one.sendall(request("/livez"))
        assert one.recv(1)
        assert read_by_page(answer_to(other), "*") == (503, "too_many_connections"), "without a word of the client's"


async def test_a_page_can_read_an_unforeseen_error(
    start_api: StartApi, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start_api(cors_origins=ORIGINS)
    page = {"Origin": ORIGIN}
    path = (await api.post("/v1/jobs", content=shirt, headers=page | {"Content-Type": "image/png"})).headers["Location"]

    async def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(JobReader, "get", fail)
    answer = await api.get(path, headers=page)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
