"""The fetcher with real servers that respond well, in unusual ways, or not at all."""

import gzip
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobs.item_codes import ItemCode
from tests.support.web import Hosts, Site, forever, serving_site
from worker.outbound.fetch import Fetcher

MakeFetcher = Callable[..., Fetcher]


async def test_an_image_is_fetched(site: Site, make_fetcher: MakeFetcher, shirt: bytes) -> None:
    url = site.responds("/shirt.png", body=shirt)
    assert await make_fetcher().fetch(url) == shirt


async def test_a_request_has_no_headers_but_the_fetchers_own(
    site: Site, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    cookie = site.responds("/a.png", body=b"x", **{"Set-Cookie": "a=b"})
    fetcher = make_fetcher()
    assert await fetcher.fetch(cookie) == b"x"
    assert await fetcher.fetch(cookie) == b"x"
    headers = site.requests[-1].headers
    assert set(headers) == {"Host", "User-Agent", "Accept-Encoding", "Accept"}
    assert headers["Accept-Encoding"] == "identity"


async def test_the_path_and_query_of_a_signed_url_are_sent_as_they_are(site: Site, make_fetcher: MakeFetcher) -> None:
    path = "/a%2Fb%20c%7E.png?X-Sig=a%2Fb%2B%3d&q=%41"
    await make_fetcher().fetch(site.url + path)
    assert site.requests[-1].raw_path == path


async def test_redirects_are_followed(site: Site, make_fetcher: MakeFetcher) -> None:
    site.responds("/there/a.png", body=b"x")
    site.redirects("/2", "there/a.png", 307)
    url = site.redirects("/1", "/2", 301)
    assert await make_fetcher().fetch(url) == b"x"


@pytest.mark.parametrize("location", ["", "http://[bad", "http://h:99999/"])
async def test_redirects_to_nowhere_fail(site: Site, make_fetcher: MakeFetcher, location: str) -> None:
    url = site.redirects("/", location)
    assert await make_fetcher().fetch(url) is ItemCode.FETCH_FAILED


async def test_a_redirect_loop_ends(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.redirects("/loop", "/loop")
    assert await make_fetcher().fetch(url) is ItemCode.TOO_MANY_REDIRECTS
    assert site.requested("/loop") == 6


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "fetch_denied"),
        (403, "fetch_denied"),
        (404, "fetch_not_found"),
        (410, "fetch_not_found"),
        (304, "fetch_failed"),
        (400, "fetch_failed"),
        (407, "fetch_failed"),
    ],
)
async def test_a_refusal_has_its_code_and_is_not_tried_again(
    site: Site, make_fetcher: MakeFetcher, status: int, code: str
) -> None:
    url = site.responds("/a.png", status)
    assert await make_fetcher().fetch(url) == code
    assert site.requested("/a.png") == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_with_an_error_is_called_again(site: Site, make_fetcher: MakeFetcher, status: int) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status) if site.requested("/a.png") < 3 else web.Response(body=b"x")

    assert await make_fetcher().fetch(site.at("/a.png", handle)) == b"x"
    failing = site.responds("/b.png", status)
    assert await make_fetcher().fetch(failing) is ItemCode.FETCH_FAILED
    assert site.requested("/b.png") == 3


async def test_a_broken_connection_is_tried_again(site: Site, make_fetcher: MakeFetcher) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        if site.requested("/a.png") == 3:
            return web.Response(body=b"x")
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    assert await make_fetcher().fetch(site.at("/a.png", break_off)) == b"x"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://unknown.test/"])
async def test_a_fetch_from_no_server_fails(make_fetcher: MakeFetcher, url: str) -> None:
    assert await make_fetcher(Hosts()).fetch(url) is ItemCode.FETCH_FAILED


async def test_an_image_whose_announced_length_is_too_large_is_not_read(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.responds("/a.png", body=b"x" * 101)
    assert await make_fetcher(item_bytes_max=100).fetch(url) is ItemCode.ITEM_TOO_LARGE
    assert await make_fetcher(item_bytes_max=101).fetch(url) == b"x" * 101


async def test_an_endless_body_is_read_up_to_the_limit(site: Site, make_fetcher: MakeFetcher) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            sent += 65_536

    url = site.at("/a.png", pour)
    assert await make_fetcher(item_bytes_max=1 << 20).fetch(url) is ItemCode.ITEM_TOO_LARGE
    assert sent < 16 << 20  # with the bytes in the sockets' buffers


async def test_a_slow_body_runs_out_of_time(site: Site, make_fetcher: MakeFetcher) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await forever()
        return response

    url = site.at("/a.png", drip)
    assert await make_fetcher(fetch_seconds_max=0.2).fetch(url) is ItemCode.FETCH_TIMEOUT


async def test_a_server_that_never_answers_runs_out_of_time(site: Site, make_fetcher: MakeFetcher) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await forever()
        raise AssertionError

    url = site.at("/a.png", hang)
    assert await make_fetcher(fetch_seconds_max=0.2).fetch(url) is ItemCode.FETCH_TIMEOUT


async def test_a_compressed_response_is_not_unpacked(site: Site, make_fetcher: MakeFetcher) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    url = site.responds("/a.png", body=bomb, **{"Content-Encoding": "gzip"})
    assert await make_fetcher().fetch(url) == bomb


async def test_huge_headers_fail(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.responds("/a.png", body=b"x", **{"X-Long": "a" * 100_000})
    assert await make_fetcher().fetch(url) is ItemCode.FETCH_FAILED


async def test_an_empty_body_is_an_empty_image(site: Site, make_fetcher: MakeFetcher) -> None:
    assert await make_fetcher().fetch(site.responds("/a.png")) == b""


async def test_a_server_with_a_self_signed_certificate_gets_no_request(
    make_fetcher: MakeFetcher, tmp_path: Path
) -> None:
    async with serving_site(self_signed(tmp_path)) as site:
        url = site.responds("/a.png", body=b"x")
        assert url.startswith("https://")
        assert await make_fetcher().fetch(url) is ItemCode.FETCH_FAILED
        assert site.requests == []
        async with aiohttp.ClientSession() as careless, careless.get(url, ssl=False) as response:
            assert await response.read() == b"x"


def self_signed(folder: Path) -> ssl.SSLContext:
    """The TLS context of a server on 127.0.0.1 with a self-signed certificate."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, host = datetime.now(UTC), x509.IPAddress(ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "server.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.mark.parametrize("url", ["", "ftp://example.com/a", "http://u:p@example.com/", "s3://UPPER/a", "/etc/passwd"])
async def test_a_malformed_url_is_not_fetched(make_fetcher: MakeFetcher, url: str) -> None:
    assert await make_fetcher().fetch(url) is ItemCode.INVALID_URL
