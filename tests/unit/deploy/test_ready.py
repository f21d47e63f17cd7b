from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from deploy.ec2.ready import base_url, missing, not_leading_to


def test_where_the_service_is() -> None:
    assert base_url("", "203.0.113.7") == "http://203.0.113.7:5000"
    assert base_url("images.example.com", "203.0.113.7") == "https://images.example.com"


def test_a_domain_must_lead_to_the_address() -> None:
    assert not_leading_to("localhost", "127.0.0.1") == ""
    assert "set its A record to 203.0.113.7" in not_leading_to("localhost", "203.0.113.7")
    assert not_leading_to("no-such-name.invalid", "203.0.113.7") == (
        "no-such-name.invalid leads to nothing: set its A record to 203.0.113.7"
    )


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"hello", "but not as Darkroom does"),
        (200, b"[]", "but not as Darkroom does"),
        (200, b'{"models": [{"serving": null}]}', "but not as Darkroom does"),
        (200, b'{"models": []}', "no worker serves a model yet"),
        (503, b'{"detail": "Redis is away"}', "answers 503 Service Unavailable: Redis is away"),
        (502, b"<html>", "answers 502 Bad Gateway"),
        (299, b"", "but not as Darkroom does"),
    ],
)
def test_answers_that_are_not_those_of_a_ready_service(status: int, body: bytes, says: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert says in missing(f"http://127.0.0.1:{server.server_port}", "key")
        server.shutdown()


def test_nobody_answers() -> None:
    assert missing("http://127.0.0.1:1", "key").startswith("http://127.0.0.1:1/readyz does not answer (")
