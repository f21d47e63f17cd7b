"""What the processes of a worker keep of what they fetched. Each `RecentlyFetched` here stands for a process."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.item_codes import ItemCode
from jobs.store.keys import FETCH
from tests.support.outbound import RunSlice, claim_images, submit_urls
from tests.support.store import Store, owner_token
from tests.support.web import Site
from worker.outbound.fetch import Fetcher
from worker.outbound.fetched import RecentlyFetched
from worker.outbound.hosts import HostBusy

MakeFetcher = Callable[..., Fetcher]
JOB = b"1"


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.iterdir()]


async def must_not_fetch(url: str) -> bytes:
    raise AssertionError(url)


async def test_another_job_fetches_anew_and_little_is_kept(
    site: Site, make_fetcher: MakeFetcher, tmp_path: Path
) -> None:
    fetcher, recently = make_fetcher(), RecentlyFetched(tmp_path, bytes_max=4000)
    urls = [site.responds(f"/{n}.png", body=bytes(1000)) for n in range(2)]
    for job_id, url in ((b"1", urls[0]), (b"1", urls[0]), (b"2", urls[0]), (b"1", urls[1]), (b"1", urls[0])):
        assert await recently.get(job_id, url, fetcher.fetch) == bytes(1000)
    assert [request.path for request in site.requests] == ["/0.png", "/0.png", "/1.png", "/0.png"]


async def test_images_and_codes_are_there_for_other_processes(tmp_path: Path) -> None:
    fetched = {"image": b"image", "empty": b"", "absent": ItemCode.FETCH_NOT_FOUND}

    async def fetch(url: str) -> bytes | ItemCode:
        return fetched[url]

    first, second = RecentlyFetched(tmp_path), RecentlyFetched(tmp_path)
    for url, expected in fetched.items():
        assert second.find(JOB, url) is None
        assert await first.get(JOB, url, fetch) == expected
        found = second.find(JOB, url)
        assert (type(found), found) == (type(expected), expected)
        assert await second.get(JOB, url, must_not_fetch) == expected


async def test_processes_together_keep_no_more_than_the_limit(tmp_path: Path) -> None:
    async def fetch(_: str) -> bytes:
        return bytes(1000)

    processes = [RecentlyFetched(tmp_path, processes=3, bytes_max=30_000) for _ in range(3)]
    most = 0
    for number in range(200):
        await processes[number * number % 3].get(JOB, str(number), fetch)
        most = max(most, sum(sizes(tmp_path)))
    assert 15_000 < most <= 30_000 + 3 * 1000
    assert await processes[0].get(JOB, "199", must_not_fetch) == bytes(1000), "the last ones are kept"


async def test_who_waits_for_a_fetch_that_brings_nothing_tries_later(tmp_path: Path) -> None:
    fetching, failing = asyncio.Event(), asyncio.Event()

    async def fail(_: str) -> bytes:
        fetching.set()
        await failing.wait()
        raise HostBusy

    async def fetch(_: str) -> bytes:
        return b"x"

    first, second = RecentlyFetched(tmp_path), RecentlyFetched(tmp_path)
    tasks = [asyncio.create_task(first.get(JOB, "a", fail))]
    await fetching.wait()
    tasks.append(asyncio.create_task(second.get(JOB, "a", must_not_fetch)))
    await asyncio.sleep(0)
    failing.set()
    for task in tasks:
        with pytest.raises(HostBusy):
            await task
    assert await second.get(JOB, "a", fetch) == b"x"
    assert len(sizes(tmp_path)) == 1, "no lock is left"


async def test_a_fetch_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    fetching = asyncio.Event()

    async def hang(_: str) -> bytes:
        fetching.set()
        await asyncio.Event().wait()
        return b""

    first, second = RecentlyFetched(tmp_path), RecentlyFetched(tmp_path, wait_seconds=0.1)
    hanging = asyncio.create_task(first.get(JOB, "a", hang))
    await fetching.wait()
    with pytest.raises(HostBusy):
        await second.get(JOB, "a", must_not_fetch)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_without_a_place_to_keep_them_images_are_fetched_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(_: str) -> bytes:
        return b"x"

    recently = RecentlyFetched(tmp_path / "absent")
    assert [await recently.get(JOB, "a", fetch) for _ in range(2)] == [b"x", b"x"]
    assert "cannot be kept" in caplog.text


async def test_what_a_suspect_chunk_has_fetched_before_is_not_fetched_again(
    store: Store, run_slice: RunSlice, site: Site, fetched_folder: Path, make_fetcher: MakeFetcher
) -> None:
    urls = [site.responds(f"/{n}.png", body=b"image %d" % n) for n in range(2)]
    job_id = await submit_urls(store, *urls)
    await RecentlyFetched(fetched_folder).get(job_id, urls[0], make_fetcher().fetch)
    lease = store.claim(owner_token(0, pid=2), model=FETCH)
    store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
    await run_slice()
    assert claim_images(store) == [b"image 0", b"image 1"]
    assert [site.requested(f"/{n}.png") for n in range(2)] == [1, 1]


async def test_equal_urls_are_fetched_once_also_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share one fetch without a file: a wait for a file that cannot be written would be in vain for ever."""
    fetches = 0

    async def fetch(_: str) -> bytes:
        nonlocal fetches
        fetches += 1
        await asyncio.sleep(0)
        return b"image"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    recently = RecentlyFetched(tmp_path)
    assert await recently.get(JOB, "before", fetch) == b"image"
    monkeypatch.setattr("worker.outbound.fetched.os.pwrite", full)
    monkeypatch.setattr(recently, "_bytes_left", 0)
    assert await asyncio.gather(*(recently.get(JOB, "equal", fetch) for _ in range(3))) == [b"image"] * 3
    assert fetches == 2
    assert recently.find(JOB, "before") is None, "what was kept makes room"
