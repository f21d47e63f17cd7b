"""A page of another origin in a real browser: what it can read of refusals."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration.web.conftest import Visit
from tests.support.processes import Api
from tests.support.stack import Stack

_READ = """
async ([url, options]) => {
  const answer = await fetch(url, options);
  return [answer.status, (await answer.json()).code, answer.headers.get("Retry-After")];
}
"""
_WITH_KEY = {"headers": {"Authorization": "Bearer none"}}  # for which a browser asks first


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1></main></html>')

    def log_message(self, *_: object) -> None:  # type: ignore[override]
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Of a page beside the API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _api(server: Stack, origin: str, **settings: str) -> Api:
    return server.api(CORS_ORIGINS=json.dumps(["https://app.example.com", origin]), **settings)


def test_a_page_reads_why_it_was_refused(visit: Visit, server: Stack, origin: str) -> None:
    api = _api(server, origin)
    page = visit(origin, allowed=("Failed to load resource", "favicon")).open()
    for options in ({}, _WITH_KEY):
        for path, status, code in (
            ("/v1/jobs/x", 404, "job_not_found"),
            ("/livez?" + "a" * (9 << 10), 414, "url_too_long"),
            ("/livez?" + "a" * (200 << 10), 414, "url_too_long"),
        ):
            assert page.evaluate(_READ, [api.url + path, options]) == [status, code, None]
    large = {"headers": {"X-Large": "b" * (33 << 10)}}
    assert page.evaluate(_READ, [f"{api.url}/livez", large]) == [431, "headers_too_large", None]


def test_a_page_reads_that_too_many_connections_are_open(visit: Visit, server: Stack, origin: str) -> None:
    api = _api(server, origin, CONNECTIONS_PER_ADDRESS_MAX="1")
    page = visit(origin, allowed=("Failed to load resource", "favicon")).open()
    with ExitStack() as stack:
        one = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one.recv(1)
        for options in ({}, _WITH_KEY):
            assert page.evaluate(_READ, [f"{api.url}/livez", options]) == [503, "too_many_connections", "2"]
