"""Fetching from real servers that behave well, oddly and badly."""

import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from jobs.item_codes import ItemCode
from tests.support.web import Hosts, Site, forever, serving_site
from worker.outbound.fetch import Fetcher
from worker.outbound.settings import FetchSettings
from worker.outbound.web import CheckedHttp

MakeFetcher = Callable[..., Fetcher]
LOCAL = ["127.0.0.0/8"]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as site:
        yield site


@pytest.fixture
async def make_fetcher() -> AsyncIterator[MakeFetcher]:
    async with AsyncExitStack() as stack:
        made: list[CheckedHttp] = []

        def make(hosts: Hosts | None = None, **settings: Any) -> Fetcher:
            values = {"fetch_allow_networks": LOCAL, "fetch_retry_seconds": 0.01} | settings
            checked = FetchSettings(**values)
            made.append(CheckedHttp(checked, hosts))
            stack.push_async_exit(made[-1])
            return Fetcher(checked, made[-1])

        yield make


async def test_an_image_is_fetched(site: Site, make_fetcher: MakeFetcher, shirt: bytes) -> None:
    url = site.answers("/shirt.png", body=shirt)
    assert await make_fetcher().fetch(url) == shirt


async def test_a_request_says_who_asks_and_nothing_else(
    site: Site, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    cookie = site.answers("/a.png", body=b"x", **{"Set-Cookie": "a=b"})
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


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://127.0.0.2:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://0x7f.1:{port}/",
        "http://0x7f000001:{port}/",
        "http://localhost:{port}/",
        "http://LOCALHOST:{port}/",
        "http://①②⑦.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[fd00:ec2::254]/",
        "http://8.8.8.8:25/",
    ],
)
async def test_addresses_that_are_not_public_are_refused_however_they_are_written(
    site: Site, make_fetcher: MakeFetcher, url: str
) -> None:
    code = await make_fetcher(fetch_allow_networks=[]).fetch(url.format(port=site.port))
    assert code is ItemCode.FORBIDDEN_ADDRESS
    assert site.requests == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "017700000001"])
async def test_hosts_of_digits_that_are_no_plain_address_are_refused(
    site: Site, make_fetcher: MakeFetcher, host: str
) -> None:
    assert await make_fetcher().fetch(f"http://{host}:{site.port}/") is ItemCode.INVALID_URL
    assert site.requests == []


async def test_a_name_that_leads_to_a_private_address_is_refused(site: Site, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(Hosts(evil_test=["127.0.0.1"]), fetch_allow_networks=[])
    assert await fetcher.fetch(f"http://evil.test:{site.port}/") is ItemCode.FORBIDDEN_ADDRESS
    assert site.requests == []


async def test_a_name_that_leads_elsewhere_at_its_second_look_up_is_refused(
    site: Site, make_fetcher: MakeFetcher
) -> None:
    site.answers("/", 302, Location="/secret", Connection="close")
    site.answers("/secret", body=b"secret")
    fetcher = make_fetcher(Hosts(evil_test=["127.0.0.1", "127.0.0.2"]), fetch_allow_networks=["127.0.0.1"])
    fetcher._web._checked.connector._use_dns_cache = False
    assert await fetcher.fetch(f"http://evil.test:{site.port}/") is ItemCode.FORBIDDEN_ADDRESS
    assert (site.asked("/"), site.asked("/secret")) == (1, 0)


async def test_of_several_addresses_only_the_allowed_ones_are_connected_to(
    site: Site, make_fetcher: MakeFetcher
) -> None:
    site.answers("/a.png", body=b"x")
    fetcher = make_fetcher(Hosts(many_test=["127.0.0.2,127.0.0.1"]), fetch_allow_networks=["127.0.0.1"])
    assert await fetcher.fetch(f"http://many.test:{site.port}/a.png") == b"x"
    fetcher = make_fetcher(Hosts(many_test=["10.0.0.1,127.0.0.2"]), fetch_allow_networks=[])
    assert await fetcher.fetch(f"http://many.test:{site.port}/a.png") is ItemCode.FORBIDDEN_ADDRESS


async def test_an_allowed_host_may_have_any_address(site: Site, make_fetcher: MakeFetcher) -> None:
    site.answers("/a.png", body=b"x")
    hosts = Hosts(images_internal=["127.0.0.1"], other_internal=["127.0.0.1"])
    fetcher = make_fetcher(hosts, fetch_allow_networks=[], fetch_allow_hosts=["Images.Internal"])
    assert await fetcher.fetch(f"http://images.internal:{site.port}/a.png") == b"x"
    assert await fetcher.fetch(f"http://other.internal:{site.port}/a.png") is ItemCode.FORBIDDEN_ADDRESS


async def test_redirects_are_followed(site: Site, make_fetcher: MakeFetcher) -> None:
    site.answers("/there/a.png", body=b"x")
    site.redirects("/2", "there/a.png", 307)
    url = site.redirects("/1", "/2", 301)
    assert await make_fetcher().fetch(url) == b"x"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:{port}/secret",
        "http://localhost:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "//127.0.0.1:{port}/secret",
        "http://user:pw@images.internal:{port}/secret",
        "file:///etc/passwd",
        "gopher://images.internal:{port}/secret",
    ],
)
async def test_redirects_to_forbidden_places_are_refused(site: Site, make_fetcher: MakeFetcher, location: str) -> None:
    site.redirects("/", location.format(port=site.port))
    site.answers("/secret", body=b"secret")
    fetcher = make_fetcher(
        Hosts(images_internal=["127.0.0.1"], localhost=["127.0.0.1"]),
        fetch_allow_networks=[],
        fetch_allow_hosts=["images.internal"],
    )
    code = await fetcher.fetch(f"http://images.internal:{site.port}/")
    assert code is ItemCode.FORBIDDEN_ADDRESS
    assert site.asked("/secret") == 0


@pytest.mark.parametrize("location", ["", "http://[bad", "http://h:99999/"])
async def test_redirects_to_nowhere_fail(site: Site, make_fetcher: MakeFetcher, location: str) -> None:
    url = site.redirects("/", location)
    assert await make_fetcher().fetch(url) is ItemCode.FETCH_FAILED


async def test_a_redirect_loop_ends(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.redirects("/loop", "/loop")
    assert await make_fetcher().fetch(url) is ItemCode.TOO_MANY_REDIRECTS
    assert site.asked("/loop") == 6


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
    url = site.answers("/a.png", status)
    assert await make_fetcher().fetch(url) == code
    assert site.asked("/a.png") == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_in_trouble_is_asked_again(site: Site, make_fetcher: MakeFetcher, status: int) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status) if site.asked("/a.png") < 3 else web.Response(body=b"x")

    assert await make_fetcher().fetch(site.at("/a.png", handle)) == b"x"
    failing = site.answers("/b.png", status)
    assert await make_fetcher().fetch(failing) is ItemCode.FETCH_FAILED
    assert site.asked("/b.png") == 3


async def test_a_broken_connection_is_tried_again(site: Site, make_fetcher: MakeFetcher) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        if site.asked("/a.png") == 3:
            return web.Response(body=b"x")
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return answer

    assert await make_fetcher().fetch(site.at("/a.png", break_off)) == b"x"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://unknown.test/"])
async def test_where_nobody_answers_the_fetch_fails(make_fetcher: MakeFetcher, url: str) -> None:
    assert await make_fetcher(Hosts()).fetch(url) is ItemCode.FETCH_FAILED


async def test_what_announces_too_much_is_not_read(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.answers("/a.png", body=b"x" * 101)
    assert await make_fetcher(item_bytes_max=100).fetch(url) is ItemCode.ITEM_TOO_LARGE
    assert await make_fetcher(item_bytes_max=101).fetch(url) == b"x" * 101


async def test_an_endless_body_is_read_up_to_the_limit(site: Site, make_fetcher: MakeFetcher) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65_536)
            sent += 65_536

    url = site.at("/a.png", pour)
    assert await make_fetcher(item_bytes_max=1 << 20).fetch(url) is ItemCode.ITEM_TOO_LARGE
    assert sent < 16 << 20  # what fits into sockets' buffers is sent, too


async def test_a_slow_body_runs_out_of_time(site: Site, make_fetcher: MakeFetcher) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        await forever()
        return answer

    url = site.at("/a.png", drip)
    assert await make_fetcher(fetch_seconds_max=0.2).fetch(url) is ItemCode.FETCH_TIMEOUT


async def test_a_server_that_never_answers_runs_out_of_time(site: Site, make_fetcher: MakeFetcher) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await forever()
        raise AssertionError

    url = site.at("/a.png", hang)
    assert await make_fetcher(fetch_seconds_max=0.2).fetch(url) is ItemCode.FETCH_TIMEOUT


async def test_what_is_sent_compressed_is_not_unpacked(site: Site, make_fetcher: MakeFetcher) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    url = site.answers("/a.png", body=bomb, **{"Content-Encoding": "gzip"})
    assert await make_fetcher().fetch(url) == bomb


async def test_huge_headers_fail(site: Site, make_fetcher: MakeFetcher) -> None:
    url = site.answers("/a.png", body=b"x", **{"X-Long": "a" * 100_000})
    assert await make_fetcher().fetch(url) is ItemCode.FETCH_FAILED


async def test_an_empty_body_is_an_empty_image(site: Site, make_fetcher: MakeFetcher) -> None:
    assert await make_fetcher().fetch(site.answers("/a.png")) == b""


async def test_tls_is_not_spoken_with_a_server_that_nobody_vouches_for(site: Site, make_fetcher: MakeFetcher) -> None:
    assert await make_fetcher().fetch(f"https://127.0.0.1:{site.port}/") is ItemCode.FETCH_FAILED
    context = make_fetcher()._web._checked.connector._ssl
    assert context is True or (isinstance(context, ssl.SSLContext) and context.verify_mode is ssl.CERT_REQUIRED)


@pytest.mark.parametrize("url", ["", "ftp://example.com/a", "http://u:p@example.com/", "s3://UPPER/a", "/etc/passwd"])
async def test_what_is_no_url_is_not_fetched(make_fetcher: MakeFetcher, url: str) -> None:
    assert await make_fetcher().fetch(url) is ItemCode.INVALID_URL
