"""What clients other than curl send on a connection, and what they expect."""

import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from api.settings import ApiSettings
from jobs.ids import to_text
from tests.integration.api.asgi.test_wire import (
    connected,
    ended,
    process,
    read_response,
    request,
    split_response,
    to_the_end,
)
from tests.support.processes import Api, Valkey
from tests.support.store import Store
from tests.support.waiting import eventually, wait_until

__all__ = ["process"]

JAVA = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


def submit(shirt: bytes, *headers: str) -> bytes:
    head = request("/v1/jobs", "Content-Type: image/png", f"Content-Length: {len(shirt)}", *headers, method="POST")
    return head + shirt


@pytest.mark.parametrize("upgrade", [JAVA, ("Connection: upgrade", "Upgrade: websocket"), ("Upgrade: h2c",)])
@pytest.mark.parametrize("cut", [0, 40, 150, -1])
def test_an_upgrade_that_is_not_taken_is_ignored(
    store: Store, process: Api, shirt: bytes, upgrade: tuple[str, ...], cut: int
) -> None:
    data = submit(shirt, *upgrade)
    with connected(process) as connection, connection.makefile("rb") as stream:
        for _ in range(2):  # the connection stays good for the next request
            for piece in (data[:cut], data[cut:]):
                connection.sendall(piece)
            status, _, body = read_response(stream)
            assert status == b"HTTP/1.1 202 Accepted"
            assert json.loads(body)["counts"]["total"] == 1
    assert store.redis.hget("stats", "accepted") == b"2"


def test_many_pipelined_requests_with_an_upgrade_are_answered(valkey: Valkey, process: Api) -> None:
    count = 3_000  # more than Python's stack is deep
    with connected(process) as connection, connection.makefile("rb") as stream:
        connection.sendall(request("/livez", *JAVA) * count)
        assert {read_response(stream)[0] for _ in range(count)} == {b"HTTP/1.1 200 OK"}


def test_close_is_kept_where_an_upgrade_is_ignored(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        connection.sendall(request("/livez", "Connection: close, Upgrade", "Upgrade: h2c"))
        status, headers, _ = split_response(to_the_end(connection))
    assert (status, headers["connection"]) == (b"HTTP/1.1 200 OK", "close")


def test_connect_is_refused(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 4")


def test_a_client_that_leaves_within_a_body_makes_no_job(store: Store, process: Api, shirt: bytes) -> None:
    with connected(process) as connection:
        connection.sendall(submit(shirt)[:-10])
        connection.shutdown(socket.SHUT_WR)
        to_the_end(connection)
    assert store.redis.hget("stats", "accepted") is None


def test_an_idle_connection_outlives_those_that_load_balancers_keep() -> None:
    assert ApiSettings().keep_alive_seconds > 60


def test_an_idle_connection_is_closed_after_the_settings_time(valkey: Valkey, tmp_path: Path) -> None:
    with Api(valkey.url, tmp_path / "log", KEEP_ALIVE_SECONDS="1") as api, connected(api) as connection:
        connection.sendall(request("/livez"))
        assert to_the_end(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_address_of_all_interfaces_is_that_of_both_families(valkey: Valkey, tmp_path: Path, processes: str) -> None:
    settings = {"HOST": "::", "OPEN_TO_EVERYBODY": "1", "API_PROCESSES": processes}
    with Api(valkey.url, tmp_path / "log", **settings) as api:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{api.port}/livez").status_code == 200


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_stops_the_api_without_a_traceback(valkey: Valkey, tmp_path: Path, processes: str) -> None:
    with Api(valkey.url, tmp_path / "log", API_PROCESSES=processes) as api:
        os.kill(api.pid, signal.SIGINT)
        wait_until(lambda: not api.running(), what="the end of the API")
        assert "Traceback" not in api.output()


def test_a_client_that_shuts_its_sending_side_is_answered(store: Store, process: Api, shirt: bytes) -> None:
    with connected(process) as connection:
        connection.sendall(submit(shirt))
        connection.shutdown(socket.SHUT_WR)
        status, headers, body = split_response(to_the_end(connection))
    assert (status, headers["connection"]) == (b"HTTP/1.1 202 Accepted", "close")
    assert json.loads(body)["counts"]["total"] == 1
    assert store.redis.hget("stats", "accepted") == b"1"


def test_a_client_that_shuts_its_sending_side_waits_for_no_job(store: Store, process: Api, shirt: bytes) -> None:
    with connected(process) as connection:
        connection.sendall(submit(shirt, "Prefer: wait=30"))
        connection.shutdown(socket.SHUT_WR)
        status, _, body = split_response(to_the_end(connection))
    assert (status, json.loads(body)["status"]) == (b"HTTP/1.1 202 Accepted", "queued")


async def test_a_client_that_shuts_its_sending_side_gets_all_of_a_large_response(store: Store, process: Api) -> None:
    path = await ended(store, 5000)
    with connected(process) as connection:
        connection.sendall(request(f"{path}/results?format=csv"))
        connection.shutdown(socket.SHUT_WR)
        _, headers, body = split_response(to_the_end(connection))
    assert headers["transfer-encoding"] == "chunked"
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert body.count(b"succeeded") == 5000


def test_all_pipelined_requests_are_answered_behind_a_shut_sending_side(valkey: Valkey, process: Api) -> None:
    with connected(process) as connection:
        connection.sendall(request("/livez") * 3)
        connection.shutdown(socket.SHUT_WR)
        assert to_the_end(connection).count(b"HTTP/1.1 200 OK") == 3


async def test_who_leaves_the_stream_of_a_job_is_let_go(store: Store, valkey: Valkey, tmp_path: Path) -> None:
    path = f"/v1/jobs/{to_text(await store.submit(b'image'))}"

    def status(api: Api) -> int:
        with httpx.stream("GET", f"{api.url}{path}/events") as answer:
            return answer.status_code

    with Api(valkey.url, tmp_path / "log", HELD_STREAMS_MAX="1") as api:
        with connected(api) as connection:
            connection.sendall(request(f"{path}/results?follow=true&format=csv"))
            await eventually(lambda: status(api) == 503, what="the stream")
        await eventually(lambda: status(api) == 200, seconds=20, what="its end")


@pytest.mark.parametrize("path", ["/livez", "/v1/jobs", "/docs"])
def test_http_1_0_gets_a_response_that_ends_with_the_connection(valkey: Valkey, process: Api, path: str) -> None:
    with connected(process) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        _, headers, body = split_response(to_the_end(connection))
    assert len(body) == int(headers["content-length"]) > 0


async def test_http_1_0_never_gets_chunks(store: Store, process: Api) -> None:
    path = await ended(store, 200)
    with connected(process) as connection:
        connection.sendall(f"GET {path}/results?format=ndjson HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        status, headers, body = split_response(to_the_end(connection))
    assert (status, headers["connection"]) == (b"HTTP/1.1 200 OK", "close")
    assert not {"transfer-encoding", "content-length"} & headers.keys()
    assert [json.loads(line)["index"] for line in body.splitlines()] == list(range(200))


def test_http_1_0_is_not_asked_for_its_body(valkey: Valkey, process: Api, shirt: bytes) -> None:
    head = f"POST /v1/jobs HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(shirt)}\r\n\r\n"
    with connected(process) as connection:
        connection.sendall(head.encode() + shirt)
        assert to_the_end(connection).startswith(b"HTTP/1.1 202 ")
