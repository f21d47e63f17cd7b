"""The outbound process in this process fetches images, on a real store, from real servers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from jobs.codec import unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import JobState
from jobs.store import keys
from jobs.store.job_hash import job_key
from jobs.store.keys import FETCH
from tests.support.outbound import PATIENT, MakeOutboundProcess, RunSlice, claim_images, submit_urls
from tests.support.store import MODEL, OWNER, Store, owner_token
from tests.support.waiting import eventually
from tests.support.web import Site


async def test_images_are_fetched_and_queued_for_the_jobs_model(store: Store, run_slice: RunSlice, site: Site) -> None:
    urls = [site.responds(f"/{n}.png", body=b"image %d" % n) for n in range(3)]
    job_id = await submit_urls(store, urls[0], site.url + "/absent", urls[1], "http://10.0.0.1/", urls[2])
    assert store.claim().chunks == [], "no chunk for the model is ready yet"

    await run_slice()

    lease = store.claim()
    chunk_ref, upload = lease.chunks[0].chunk_ref, lease.chunks[0].upload
    assert upload is not None
    assert [item if isinstance(item, ItemCode) else bytes(item) for item in unpack_upload(upload, 5)] == [
        b"image 0",
        ItemCode.FETCH_NOT_FOUND,
        b"image 1",
        ItemCode.FORBIDDEN_ADDRESS,
        b"image 2",
    ]
    assert (chunk_ref.items, chunk_ref.upload_bytes, chunk_ref.by_reference) == (5, len(upload), False)
    assert store.stat("uploads") == len(upload) + keys.UPLOAD_KEY_BYTES
    store.finish(lease)
    assert (await store.get(job_id)).state is JobState.COMPLETED
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}")) == (0, 0)
    assert store.redis.exists(keys.LEASES) == 0
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


async def test_a_slow_server_delays_its_own_chunk_alone(
    store: Store, make_outbound_process: MakeOutboundProcess, site: Site
) -> None:
    released = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=b"slow")

    await submit_urls(store, site.at("/slow.png", wait), chunk_items=1)
    await submit_urls(store, *[site.responds(f"/{n}.png", body=b"quick") for n in range(20)], chunk_items=1)
    with ThreadPoolExecutor(1) as thread:
        task = asyncio.get_running_loop().run_in_executor(
            thread, lambda: make_outbound_process(fetch_concurrency=2, **PATIENT).run_slice("task")
        )
        queue = f"{keys.READY}{MODEL}:i:{OWNER}"
        await eventually(lambda: store.redis.llen(queue) == 20, what="the quick images")
        released.set()
        await task
    assert store.redis.llen(queue) == 21


async def test_images_are_fetched_at_once_up_to_the_limit(store: Store, run_slice: RunSlice, site: Site) -> None:
    at_once = most = 0
    four_at_once = asyncio.Event()

    async def count(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 4:
            four_at_once.set()
        await four_at_once.wait()
        await asyncio.sleep(0.05)
        at_once -= 1
        return web.Response(body=b"x")

    await submit_urls(store, *[site.at(f"/{n}.png", count) for n in range(12)], chunk_items=1)
    await run_slice(fetch_concurrency=4, fetch_host_connections=8, **PATIENT)
    assert most == 4
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 12


async def test_a_lease_is_renewed_while_a_fetch_takes_longer(store: Store, run_slice: RunSlice, site: Site) -> None:
    async def slow(_: web.Request) -> web.Response:
        await eventually(lambda: len(store.leases.overdue(1)) == 0 and ends() > first, what="a renewal")
        return web.Response(body=b"x")

    def ends() -> float:
        return max((score for _, score in store.redis.zrange(keys.LEASES, 0, -1, withscores=True)), default=0)

    job_id = await submit_urls(store, site.at("/a.png", slow))
    first = (int(store.redis.time()[0]) + 1) * 1000
    await run_slice(lease_seconds=0.5, renew_seconds=0.1, **PATIENT)
    assert claim_images(store) == [b"x"]
    assert (await store.get(job_id)).state is JobState.RUNNING


async def test_images_of_a_canceled_job_are_dropped(store: Store, run_slice: RunSlice, site: Site) -> None:
    async def cancel(_: web.Request) -> web.Response:
        await store.jobs.cancel(job_id, OWNER)
        return web.Response(body=b"x" * 1000)

    job_id = await submit_urls(store, site.at("/a.png", cancel))
    await run_slice()
    await store.jobs.sweep([MODEL, FETCH])
    assert store.claim().chunks == []
    assert (store.stat("uploads"), store.redis.exists(keys.LEASES)) == (0, 0)
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


async def test_images_of_a_deleted_job_write_nothing(store: Store, run_slice: RunSlice, site: Site) -> None:
    async def delete(_: web.Request) -> web.Response:
        await store.jobs.delete(job_id, OWNER)
        return web.Response(body=b"x" * 1000)

    job_id = await submit_urls(store, site.at("/a.png", delete))
    await run_slice()
    await store.jobs.sweep([MODEL, FETCH])
    assert not store.redis.exists(job_key(job_id))
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


async def test_a_url_that_crashed_three_processes_fails_unfetched_and_its_neighbours_are_fetched(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    urls = [site.responds(f"/{n}.png", body=b"image %d" % n) for n in range(3)]
    await submit_urls(store, *urls)
    store.leases.release(store.claim(model=FETCH).token, ItemCode.WORKER_CRASHED)
    for attempt in range(2):
        lease = store.claim(owner_token(attempt, pid=2), turn=1, model=FETCH)
        assert lease.suspect
        store.leases.renew(lease.token, at_item=1)
        store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
    await run_slice()
    assert claim_images(store) == [b"image 0", ItemCode.WORKER_CRASHED, b"image 2"]
    assert site.requested("/1.png") == 0


async def test_upload_bytes_that_are_gone_fail_their_items(store: Store, run_slice: RunSlice) -> None:
    job_id = await submit_urls(store, "http://example.com/a.png", "http://example.com/b.png")
    store.redis.delete(keys.UPLOAD.encode() + job_id + bytes(4))
    await run_slice()
    assert claim_images(store) == [ItemCode.UPLOAD_LOST] * 2
