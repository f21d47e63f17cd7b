"""The fetcher connects to public and allowed addresses only, however they are written or reached."""

from collections.abc import Callable

import pytest

from jobs.item_codes import ItemCode
from tests.support.web import Hosts, Site
from worker.outbound.fetch import Fetcher

MakeFetcher = Callable[..., Fetcher]


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
async def test_hosts_of_digits_other_than_plain_addresses_are_refused(
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
    site.responds("/", 302, Location="/secret", Connection="close")
    site.responds("/secret", body=b"secret")
    hosts = Hosts(evil_test=["127.0.0.1", "127.0.0.2"])
    fetcher = make_fetcher(hosts, dns_cache=False, fetch_allow_networks=["127.0.0.1"])
    assert await fetcher.fetch(f"http://evil.test:{site.port}/") is ItemCode.FORBIDDEN_ADDRESS
    assert (site.requested("/"), site.requested("/secret")) == (1, 0)


async def test_of_several_addresses_only_the_allowed_ones_are_connected_to(
    site: Site, make_fetcher: MakeFetcher
) -> None:
    site.responds("/a.png", body=b"x")
    fetcher = make_fetcher(Hosts(many_test=["127.0.0.2,127.0.0.1"]), fetch_allow_networks=["127.0.0.1"])
    assert await fetcher.fetch(f"http://many.test:{site.port}/a.png") == b"x"
    fetcher = make_fetcher(Hosts(many_test=["10.0.0.1,127.0.0.2"]), fetch_allow_networks=[])
    assert await fetcher.fetch(f"http://many.test:{site.port}/a.png") is ItemCode.FORBIDDEN_ADDRESS


async def test_an_allowed_host_may_have_any_address(site: Site, make_fetcher: MakeFetcher) -> None:
    site.responds("/a.png", body=b"x")
    hosts = Hosts(images_internal=["127.0.0.1"], other_internal=["127.0.0.1"])
    fetcher = make_fetcher(hosts, fetch_allow_networks=[], fetch_allow_hosts=["Images.Internal"])
    assert await fetcher.fetch(f"http://images.internal:{site.port}/a.png") == b"x"
    assert await fetcher.fetch(f"http://other.internal:{site.port}/a.png") is ItemCode.FORBIDDEN_ADDRESS


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
    site.responds("/secret", body=b"secret")
    fetcher = make_fetcher(
        Hosts(images_internal=["127.0.0.1"], localhost=["127.0.0.1"]),
        fetch_allow_networks=[],
        fetch_allow_hosts=["images.internal"],
    )
    code = await fetcher.fetch(f"http://images.internal:{site.port}/")
    assert code is ItemCode.FORBIDDEN_ADDRESS
    assert site.requested("/secret") == 0
