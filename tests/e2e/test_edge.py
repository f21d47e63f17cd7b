"""The edge in front of a real API: TLS, headers, streams, restarts of the API."""

import asyncio
import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.deploy.edge import AUTHORIZED, KEY, Edge, Sink
from tests.support.pictures import samples
from tests.support.processes import Api
from tests.support.stack import PNG, Stack
from tests.support.waiting import wait_until
from tests.support.web import serving_site

BAG = samples()["0018-bag.png"]


# -- TLS and headers


def test_a_job_is_classified_over_tls(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=20"})
    assert answer.json()["result"]["class"] == "Bag"
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not answer.headers.keys() & {"server", "via"}


def test_without_tls_there_is_a_redirect_alone(edge: Edge) -> None:
    answer = httpx.get(f"http://localhost:{edge.http_port}/v1/jobs?limit=1", headers=AUTHORIZED)
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://localhost/v1/jobs?limit=1")
    assert "server" not in answer.headers


def test_an_address_may_be_the_domain(api: Api, tmp_path: Path) -> None:
    """A client names no host in its handshake then."""
    with Edge(f"127.0.0.1:{api.port}", tmp_path, domain="127.0.0.1") as edge, edge.client() as client:
        assert client.get("/livez").json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["127.0.0.1", "evil.example", "localhost."])
def test_a_request_for_another_name_is_refused(client: httpx.Client, stack: Stack, name: str) -> None:
    """By default the answer would be 200, without content."""
    before = stack.stat("accepted")
    answer = client.post("/v1/jobs", content=BAG, headers=PNG | {"Host": name})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")
    assert "server" not in answer.headers
    assert stack.stat("accepted") == before


def raw_get(edge: Edge, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask for a path as it is written."""
    connection = http.client.HTTPSConnection("localhost", edge.port, context=edge.tls(), timeout=30)
    with closing(connection):
        connection.putrequest("GET", path)
        connection.endheaders()
        answer = connection.getresponse()
        return answer, answer.read()


async def test_metrics_are_hidden(tmp_path: Path) -> None:
    paths = "/metrics", "//metrics", "/METRICS", "/%6detrics", "/./metrics", "/x/../metrics", "/metrics/", "/metrics/x"
    async with serving_site() as site:
        for served in paths:
            site.responds(served, body=b"secret")
        with Edge(f"127.0.0.1:{site.port}", tmp_path) as edge:
            for path in (*paths, "/metrics%2f", "/metrics?a=b"):
                answer, body = await asyncio.to_thread(raw_get, edge, path)
                assert (answer.status, json.loads(body)["code"]) == (404, "not_found")
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Server"] is None
            assert site.requests == []


async def test_a_forged_address_is_replaced(tmp_path: Path) -> None:
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    async with serving_site() as site:
        site.responds("/")
        with Edge(f"127.0.0.1:{site.port}", tmp_path) as edge, edge.client() as client:
            await asyncio.to_thread(client.get, "/", headers=forged)
            (request,) = site.requests
            assert request.headers.getall("X-Forwarded-For") == ["127.0.0.1"]
            assert request.headers.getall("X-Forwarded-Host") == [f"localhost:{edge.port}"]
            assert request.headers.getall("X-Forwarded-Proto") == ["https"]
            (line,) = access_log(edge)
            assert (line["request"]["remote_ip"], line["request"]["client_ip"]) == ("127.0.0.1", "127.0.0.1")


def access_log(edge: Edge) -> list[dict]:
    def lines() -> list[dict]:
        parsed = [json.loads(line) for line in edge.output().splitlines() if line.startswith("{")]
        return [line for line in parsed if line.get("logger") == "http.log.access"]

    return wait_until(lines, what="a line of the access log")


def test_no_key_gets_into_the_log(edge: Edge, client: httpx.Client, tmp_path: Path) -> None:
    secrets = {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY, "Cookie": f"key={KEY}"}
    assert client.get(f"/v1/jobs?api_key={KEY}", headers=secrets).status_code == 422
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer wrong-{KEY}"}).status_code == 401
    wait_until(lambda: {401, 422} <= {line["status"] for line in access_log(edge)}, what="lines of the access log")
    assert KEY not in edge.output()
    with Edge("127.0.0.1:1", tmp_path) as alone, alone.client() as unanswered:
        answer = unanswered.get(f"/v1/jobs?api_key={KEY}", headers=secrets)
        assert (answer.status_code, answer.json()["code"]) == (502, "api_unreachable")
        assert answer.headers["Retry-After"] == "2"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"
        assert [line["status"] for line in access_log(alone)] == [502]
        assert KEY not in alone.output()


# -- streams


def test_events_arrive_one_by_one(client: httpx.Client) -> None:
    job = client.post("/v1/jobs?open=true").json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        lines = events.iter_lines()
        assert next(lines).startswith("retry:")
        assert client.delete(f"/v1/jobs/{job['id']}").is_success  # the stream goes on after its first event
        assert any("canceled" in line or "deleted" in line for line in lines)


def test_followed_results_arrive_one_by_one(client: httpx.Client) -> None:
    job = client.post("/v1/jobs?open=true").json()
    url = f"/v1/jobs/{job['id']}"
    assert client.post(f"{url}/items?part=1", content=BAG, headers=PNG).is_success
    with client.stream("GET", f"{url}/results?format=ndjson&follow=true") as results:
        lines = results.iter_lines()
        assert json.loads(next(lines))["class"] == "Bag"
        assert client.get(url).json()["status"] == "open"
        client.post(f"{url}/seal")
        assert [line for line in lines if line] == []


def test_a_large_upload_goes_through_as_it_comes_in(tmp_path: Path) -> None:
    pieces, piece = 512, bytes(1 << 20)
    with Sink() as sink, Edge(sink.upstream, tmp_path) as edge, edge.client() as client:

        def body() -> Iterator[bytes]:
            for sent in range(pieces):
                if sent == 8:  # the upstream has most of what was sent before the rest comes
                    wait_until(lambda: sink.received > 4 << 20, what="the first pieces at the upstream")
                yield piece

        assert client.post("/v1/jobs", content=body()).status_code == 200
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{edge.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 150_000


# -- restarts of the API


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}])
def test_a_submit_while_the_api_restarts_is_answered_and_made_once(
    client: httpx.Client, api: Api, stack: Stack, headers: dict[str, str]
) -> None:
    before = stack.stat("accepted")
    sending = threading.Event()

    def body() -> Iterator[bytes]:
        sending.set()
        yield BAG

    api.stop()
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(client.post, "/v1/jobs", content=body(), headers=PNG | headers)
        assert sending.wait(30)
        api.start()  # takes a second, in which the edge is refused
        assert answer.result().status_code == 202
    assert stack.stat("accepted") - before == 1


@pytest.mark.parametrize(
    ("method", "body", "times"),
    [("POST", b"x", 1), ("POST", b"", 1), ("DELETE", b"", 1), ("GET", b"x", 1), ("GET", b"", 2)],
)
async def test_a_request_that_was_sent_is_sent_again_only_if_that_is_harmless(
    tmp_path: Path, method: str, body: bytes, times: int
) -> None:
    """The API ends after it has read the request: it may have made a job, and the edge does not know."""
    heads = list[bytes]()

    async def break_off_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(break_off_once, "127.0.0.1", 0)
    async with server:
        upstream = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with Edge(upstream, tmp_path) as edge, edge.client() as client:
            answer = await asyncio.to_thread(client.request, method, "/v1/jobs", content=body)
            assert answer.status_code == (502 if times == 1 else 200)
    assert len(heads) == times
