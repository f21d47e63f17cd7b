"""What servers of others are spared: connections, repeats, and requests while they fail or ask for a pause."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from jobs.item_codes import ItemCode
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from tests.support.outbound import PATIENT, RunSlice, claim_images, submit_urls
from tests.support.store import MODEL, OWNER, Store
from tests.support.waiting import eventually
from tests.support.web import Site, forever
from worker.lease_client import LeaseClient
from worker.outbound.fetch import Fetcher
from worker.outbound.hosts import HostBusy

MakeFetcher = Callable[..., Fetcher]
QUEUE = f"{keys.READY}{MODEL}:i:{OWNER}"


async def test_a_host_gets_no_more_connections_than_its_limit(store: Store, run_slice: RunSlice, site: Site) -> None:
    at_once = most = 0
    another_asked = asyncio.Event()

    async def count(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await another_asked.wait()
        at_once -= 1
        return web.Response(body=b"x")

    async def another(_: web.Request) -> web.Response:
        another_asked.set()
        return web.Response(body=b"x")

    urls = [site.at(f"/{n}.png", count) for n in range(23)]
    elsewhere = site.at("/another.png", another).replace("127.0.0.1", "localhost")
    await submit_urls(store, *urls, elsewhere)
    await run_slice(**PATIENT)
    assert most == 2, "the four are shared by two processes"
    assert store.redis.llen(QUEUE) == 3


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_a_date", [False, True])
async def test_a_host_that_asks_for_a_pause_gets_it(
    site: Site, make_fetcher: MakeFetcher, status: int, *, as_a_date: bool
) -> None:
    pause = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True) if as_a_date else "3600"
    busy, other = site.responds("/busy", status, **{"Retry-After": pause}), site.responds("/other", body=b"x")
    fetcher = make_fetcher()
    assert [await fetcher.fetch(url) for url in (busy, busy, other)] == [ItemCode.FETCH_FAILED] * 3
    assert len(site.requests) == 1


async def test_a_pause_that_fits_into_the_time_is_waited_for(site: Site, make_fetcher: MakeFetcher) -> None:
    asked = list[float]()

    async def busy_once(_: web.Request) -> web.Response:
        asked.append(asyncio.get_running_loop().time())
        return web.Response(status=503, headers={"Retry-After": "1"}) if len(asked) == 1 else web.Response(body=b"x")

    assert await make_fetcher().fetch(site.at("/a.png", busy_once)) == b"x"
    assert asked[1] - asked[0] >= 1


async def test_a_host_that_fails_again_and_again_is_left_alone_for_a_while(
    site: Site, make_fetcher: MakeFetcher
) -> None:
    fetcher = make_fetcher(fetch_host_errors_max=5, fetch_seconds_max=5)
    broken = site.responds("/broken", 500)
    assert [await fetcher.fetch(broken) for _ in range(4)] == [ItemCode.FETCH_FAILED] * 4
    assert len(site.requests) == 5


async def test_after_the_pause_one_request_decides(site: Site, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(fetch_host_errors_max=1, fetch_host_pause_seconds=0.2)
    works = False

    async def repaired(_: web.Request) -> web.Response:
        return web.Response(body=b"x") if works else web.Response(status=500)

    url = site.at("/a.png", repaired)
    assert await fetcher.fetch(url) is ItemCode.FETCH_FAILED
    works = True
    assert await fetcher.fetch(url) == b"x"
    assert [await fetcher.fetch(url) for _ in range(2)] == [b"x"] * 2


async def test_who_never_gets_a_connection_makes_no_request(site: Site, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(fetch_host_connections=1, fetch_host_wait_seconds_max=0.05, fetch_seconds_max=60)

    async def hang(_: web.Request) -> web.Response:
        await forever()
        raise AssertionError

    first = asyncio.create_task(fetcher.fetch(site.at("/hangs", hang)))
    await eventually(lambda: site.requests, what="the first request")
    with pytest.raises(HostBusy):
        await fetcher.fetch(site.responds("/other", body=b"x"))
    assert [request.path for request in site.requests] == ["/hangs"]
    first.cancel()


async def test_a_url_that_comes_twice_in_a_job_is_fetched_once(store: Store, run_slice: RunSlice, site: Site) -> None:
    url, absent = site.responds("/a.png", body=b"x"), site.url + "/absent"
    await submit_urls(store, url, absent, url, url, absent, url, chunk_items=3)
    await run_slice()
    assert [site.requested(path) for path in ("/a.png", "/absent")] == [1, 1]
    lost = ItemCode.FETCH_NOT_FOUND
    assert [claim_images(store, token=n, items=1) for n in range(2)] == [[b"x", lost, b"x"], [b"x", lost, b"x"]]


async def test_a_chunk_that_waits_for_a_host_in_vain_is_fetched_later_and_counts_no_failure(
    store: Store, run_slice: RunSlice, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, returned = asyncio.Event(), list[str]()
    release = LeaseClient.release

    def record(client: LeaseClient, token: str, *args: str) -> None:
        returned.append(token)
        release(client, token, *args)

    monkeypatch.setattr(LeaseClient, "release", record)

    async def wait(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=b"slow")

    await submit_urls(store, site.at("/slow.png", wait), chunk_items=1)
    job_id = await submit_urls(store, site.responds("/quick.png", body=b"quick"), chunk_items=1)
    slice_ = asyncio.create_task(
        run_slice(**PATIENT | {"fetch_host_connections": 1, "fetch_host_wait_seconds_max": 0.05})
    )
    await eventually(lambda: returned, what="a return of the chunk")
    released.set()
    await slice_
    assert store.redis.llen(QUEUE) == 2
    assert not store.redis.hexists(job_key(job_id), chunk_field("failure_counts", 0))


async def test_images_that_wait_for_a_host_in_vain_are_fetched_later_and_what_was_fetched_is_not(
    store: Store, run_slice: RunSlice, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of ours fails no image."""
    others_wait_in_vain, busy = asyncio.Event(), list[str]()
    fetch, loop = Fetcher.fetch, asyncio.get_running_loop()

    async def record(fetcher: Fetcher, url: str) -> bytes | ItemCode:
        try:
            return await fetch(fetcher, url)
        except HostBusy:
            busy.append(url)
            if len(busy) == 2:
                loop.call_soon_threadsafe(others_wait_in_vain.set)
            raise

    async def wait(_: web.Request) -> web.Response:
        await others_wait_in_vain.wait()
        return web.Response(body=b"0")

    monkeypatch.setattr(Fetcher, "fetch", record)
    urls = [site.at("/0.png", wait), *(site.responds(f"/{n}.png", body=str(n).encode()) for n in (1, 2))]
    await submit_urls(store, *urls, chunk_items=3)
    await run_slice(slices=2, **PATIENT | {"fetch_host_connections": 1, "fetch_host_wait_seconds_max": 2})
    assert sorted(busy) == urls[1:]
    assert [site.requested(f"/{n}.png") for n in range(3)] == [1, 1, 1]
    assert claim_images(store, token=0, items=1) == [b"0", b"1", b"2"]
