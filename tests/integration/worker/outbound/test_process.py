"""The outbound child's loop in this process, on a real store, with real servers to fetch from and to call."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Signer

from jobs.codec import pack_upload, unpack_upload
from jobs.ids import to_text
from jobs.item_codes import ItemCode
from jobs.records import JobState, Lane
from jobs.store import keys
from jobs.store.job_hash import job_key
from jobs.store.keys import FETCH
from jobs.store.outbound import DeliveryStatus, OutboundStore
from jobs.store.submit import Chunk
from jobs.store.webhooks import WebhookState, read_webhook
from jobs.webhooks import Attempt
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, OWNER, Store, owner_token
from tests.support.waiting import eventually
from tests.support.web import Site, forever, serving_site
from worker.outbound.process import OutboundProcess
from worker.outbound.settings import OutboundSettings

SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
Serve = Callable[..., Any]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as site:
        yield site


@pytest.fixture
def make_outbound_process(valkey: Valkey) -> Iterator[Callable[..., OutboundProcess]]:
    made = list[OutboundProcess]()

    def make(**settings: Any) -> OutboundProcess:
        values: dict[str, Any] = {
            "redis_url": valkey.url,
            "redis_maxmemory_bytes": MAXMEMORY_BYTES,
            "item_bytes_max": 1 << 20,
            "fetch_allow_networks": ["127.0.0.0/8"],
            "fetch_retry_seconds": 0.01,
            "webhook_secrets": {OWNER: SECRET},
        }
        made.append(OutboundProcess(OutboundSettings(**values | settings), "boot"))
        return made[-1]

    yield make
    for child in made:
        child.close()


@pytest.fixture
def serve(make_outbound_process: Callable[..., OutboundProcess]) -> Iterator[Serve]:
    """Runs one task of a child, as its process would, while this event loop serves what is fetched."""
    with ThreadPoolExecutor(1) as thread:

        async def run(**settings: Any) -> None:
            def task() -> None:
                child = make_outbound_process(**settings)
                child.start()
                child.serve("task")

            await asyncio.get_running_loop().run_in_executor(thread, task)

        yield run


@pytest.fixture
def outbound(store: Store) -> Iterator[OutboundStore]:
    opened = OutboundStore(store.store_client.settings, lease_seconds=4, timeout_seconds=5)
    yield opened
    opened.close()


async def submit(
    store: Store, *urls: str, chunk_items: int = 8, lane: Lane = Lane.INTERACTIVE, **options: Any
) -> bytes:
    """A job by reference."""
    part = await store.open(lane=lane, **options)
    for at in range(0, len(urls), chunk_items):
        some = urls[at : at + chunk_items]
        data = pack_upload([url.encode() for url in some])
        await store.open_jobs.add(part, Chunk([*some], len(data), data, by_reference=True), bytes(16))
    await store.open_jobs.seal(part.job_id, OWNER)
    return part.job_id


def images(store: Store, **options: Any) -> list[bytes | ItemCode]:
    """What the classifying workers would get next."""
    (claimed,) = store.claim(**options).chunks
    assert claimed.upload is not None
    return [i if isinstance(i, ItemCode) else bytes(i) for i in unpack_upload(claimed.upload, claimed.chunk_ref.items)]


async def test_images_are_fetched_and_given_to_the_jobs_model(store: Store, serve: Serve, site: Site) -> None:
    urls = [site.answers(f"/{n}.png", body=b"image %d" % n) for n in range(3)]
    job_id = await submit(store, urls[0], site.url + "/absent", urls[1], "http://10.0.0.1/", urls[2])
    assert store.claim().chunks == [], "nothing for the model yet"

    await serve()

    lease = store.claim()
    entry, upload = lease.chunks[0].chunk_ref, lease.chunks[0].upload
    assert upload is not None
    assert [item if isinstance(item, ItemCode) else bytes(item) for item in unpack_upload(upload, 5)] == [
        b"image 0",
        ItemCode.FETCH_NOT_FOUND,
        b"image 1",
        ItemCode.FORBIDDEN_ADDRESS,
        b"image 2",
    ]
    assert (entry.items, entry.upload_bytes, entry.by_reference) == (5, len(upload), False)
    assert store.stat("uploads") == len(upload) + keys.UPLOAD_KEY_BYTES
    store.finish(lease)
    assert (await store.get(job_id)).state is JobState.COMPLETED
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}")) == (0, 0)
    assert store.redis.exists(keys.LEASES) == 0
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


async def test_a_slow_server_holds_up_its_own_chunk_alone(
    store: Store, make_outbound_process: Callable[..., OutboundProcess], site: Site
) -> None:
    released = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(body=b"slow")

    await submit(store, site.at("/slow.png", wait), chunk_items=1)
    await submit(store, *[site.answers(f"/{n}.png", body=b"quick") for n in range(20)], chunk_items=1)
    with ThreadPoolExecutor(1) as thread:
        task = asyncio.get_running_loop().run_in_executor(
            thread, lambda: make_outbound_process(fetch_concurrency=2, fetch_seconds_max=10).serve("task")
        )
        queue = f"{keys.READY}{MODEL}:i:{OWNER}"
        await eventually(lambda: store.redis.llen(queue) == 20, seconds=5, what="the quick ones")
        released.set()
        await task
    assert store.redis.llen(queue) == 21


async def test_images_are_fetched_at_once_up_to_the_limit(store: Store, serve: Serve, site: Site) -> None:
    at_once = most = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        return web.Response(body=b"x")

    await submit(store, *[site.at(f"/{n}.png", count) for n in range(12)], chunk_items=1)
    await serve(fetch_concurrency=4)
    assert most == 4
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 12


async def test_a_lease_is_kept_while_a_fetch_takes_longer(store: Store, serve: Serve, site: Site) -> None:
    async def slow(_: web.Request) -> web.Response:
        await eventually(lambda: len(store.leases.overdue(1)) == 0 and ends() > first, seconds=5, what="a renewal")
        return web.Response(body=b"x")

    def ends() -> float:
        return max((score for _, score in store.redis.zrange(keys.LEASES, 0, -1, withscores=True)), default=0)

    job_id = await submit(store, site.at("/a.png", slow))
    first = (int(store.redis.time()[0]) + 1) * 1000
    await serve(lease_seconds=0.5, renew_seconds=0.1)
    assert images(store) == [b"x"]
    assert (await store.get(job_id)).state is JobState.RUNNING


async def test_images_of_a_canceled_job_are_let_go(store: Store, serve: Serve, site: Site) -> None:
    async def cancel(_: web.Request) -> web.Response:
        await store.jobs.cancel(job_id, OWNER)
        return web.Response(body=b"x" * 1000)

    job_id = await submit(store, site.at("/a.png", cancel))
    await serve()
    await store.jobs.sweep([MODEL, FETCH])
    assert store.claim().chunks == []
    assert (store.stat("uploads"), store.redis.exists(keys.LEASES)) == (0, 0)
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


async def test_images_of_a_deleted_job_bring_nothing_back(store: Store, serve: Serve, site: Site) -> None:
    async def delete(_: web.Request) -> web.Response:
        await store.jobs.delete(job_id, OWNER)
        return web.Response(body=b"x" * 1000)

    job_id = await submit(store, site.at("/a.png", delete))
    await serve()
    await store.jobs.sweep([MODEL, FETCH])
    assert not store.redis.exists(job_key(job_id))
    assert store.redis.keys(f"{keys.UPLOAD}*") == []


TIGHT: dict[str, Any] = {"redis_maxmemory_bytes": 20_000, "item_bytes_max": 1200}  # a budget of 10,000 bytes


async def test_without_room_images_wait_and_go_on_once_there_is_some(store: Store, serve: Serve, site: Site) -> None:
    await store.submit(b"x" * 4500)
    await store.submit(b"x" * 4500)
    await submit(store, site.answers("/a.png", body=b"y" * 1100))
    serving = asyncio.create_task(serve(**TIGHT))
    await eventually(lambda: site.asked("/a.png") == 1, what="the fetch")
    await eventually(lambda: store.redis.zcard(keys.LEASES) == 1, what="a lease that is held")
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 2

    store.finish(store.claim(items=1))
    await serving
    assert store.redis.llen(f"{keys.READY}{MODEL}:i:{OWNER}") == 2
    assert (site.asked("/a.png"), store.redis.zcard(keys.LEASES)) == (1, 0)


async def test_images_that_wait_for_room_for_too_long_are_given_up_uncharged(
    store: Store, serve: Serve, site: Site
) -> None:
    await store.submit(b"x" * 9500)
    await submit(store, site.answers("/a.png", body=b"y" * 1100))
    await serve(**TIGHT, fetch_room_seconds_max=0.2, outbound_slice_seconds=0.5)
    lease = store.claim(model=FETCH)
    assert (lease.chunks[0].failure_counts.lost_leases, lease.chunks[0].failure_counts.crashes) == (0, 0)
    assert site.asked("/a.png") == 1, "it is not fetched again and again"


async def test_urls_that_fill_the_budget_do_not_wait_for_ever(store: Store, serve: Serve, site: Site) -> None:
    site.answers("/a.png", body=b"y" * 1100)
    urls = [f"{site.url}/a.png?{n}" + "q" * 1900 for n in range(6)]
    await submit(store, *urls, chunk_items=1)
    await serve(**TIGHT, fetch_room_seconds_max=0.2)
    assert store.stat("uploads") > 10_000
    assert images(store, items=1) == [b"y" * 1100]


async def test_a_full_redis_is_no_room(store: Store, outbound: OutboundStore) -> None:
    await submit(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    store.redis.config_set("maxmemory", 1)
    entry = lease.chunks[0].chunk_ref
    assert outbound.deliver(lease.token, entry, b"x" * 1000) is DeliveryStatus.QUEUE_FULL
    store.redis.config_set("maxmemory", MAXMEMORY_BYTES)
    assert outbound.deliver(lease.token, entry, b"x" * 1000) is DeliveryStatus.OK


async def test_what_comes_after_its_lease_has_lapsed_is_not_taken(store: Store, outbound: OutboundStore) -> None:
    await submit(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    store.leases.release(lease.token, "returned")
    before = store.keys()
    assert outbound.deliver(lease.token, lease.chunks[0].chunk_ref, b"late") is DeliveryStatus.LOST
    assert store.keys() == before
    again = store.claim(model=FETCH, token=owner_token(0, pid=2))
    assert outbound.deliver(again.token, again.chunks[0].chunk_ref, pack_upload([b"x"])) is DeliveryStatus.OK
    assert outbound.deliver(again.token, again.chunks[0].chunk_ref, pack_upload([b"y"])) is DeliveryStatus.LOST
    assert images(store) == [b"x"]


async def test_a_url_that_has_killed_thrice_fails_unfetched_and_its_neighbours_are_fetched(
    store: Store, serve: Serve, site: Site
) -> None:
    urls = [site.answers(f"/{n}.png", body=b"image %d" % n) for n in range(3)]
    await submit(store, *urls)
    store.leases.release(store.claim(model=FETCH).token, ItemCode.WORKER_CRASHED)
    for attempt in range(2):
        lease = store.claim(owner_token(attempt, pid=2), turn=1, model=FETCH)
        assert lease.suspect
        store.leases.renew(lease.token, at_item=1)
        store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
    await serve()
    assert images(store) == [b"image 0", ItemCode.WORKER_CRASHED, b"image 2"]
    assert site.asked("/1.png") == 0


async def test_upload_bytes_that_are_gone_fail_their_items(store: Store, serve: Serve) -> None:
    job_id = await submit(store, "http://example.com/a.png", "http://example.com/b.png")
    store.redis.delete(keys.UPLOAD.encode() + job_id + bytes(4))
    await serve()
    assert images(store) == [ItemCode.UPLOAD_LOST] * 2


# -- webhooks


async def ended(store: Store, url: str, *, owner: str = OWNER) -> bytes:
    """A job of one image with a webhook, that has completed."""
    submission = await store.submission(owner=owner)
    submission.webhook_url = url
    await store.submitter.enqueue(submission)
    store.finish(store.claim())
    return submission.id


async def test_a_webhook_is_called_signed_and_says_what_became_of_the_job(
    store: Store, serve: Serve, site: Site
) -> None:
    job_id = await ended(store, site.answers("/hook", 204) + "?token=t")
    await serve()

    assert site.asked("/hook") == 1
    request, body = site.requests[-1], site.bodies[-1]
    assert (request.method, request.path_qs, request.content_type) == ("POST", "/hook?token=t", "application/json")
    said = Signer(SECRET).verify(body, dict(request.headers))
    job = await store.get(job_id)
    assert said["type"] == "job.completed"
    assert said["data"]["id"] == request.headers["webhook-id"] == to_text(job_id)
    assert said["data"]["counts"] == {"total": 1, "succeeded": 1, "failed": 0, "canceled": 0}
    assert said["data"]["links"]["self"] == f"/v1/jobs/{to_text(job_id)}"
    webhook = await read_webhook(store.store_client, job)
    assert (webhook.state, webhook.next_ms) == (WebhookState.DELIVERED, None)
    assert [attempt.outcome for attempt in webhook.attempts] == [204]


async def test_a_canceled_job_calls_its_webhook_too(store: Store, serve: Serve, site: Site) -> None:
    submission = await store.submission()
    submission.webhook_url = site.answers("/hook")
    await store.submitter.enqueue(submission)
    await store.jobs.cancel(submission.id, OWNER)
    await serve()
    assert json.loads(site.bodies[-1])["type"] == "job.canceled"
    assert json.loads(site.bodies[-1])["data"]["counts"]["canceled"] == 1


async def test_a_webhook_that_fails_is_called_again_with_the_same_words(store: Store, serve: Serve, site: Site) -> None:
    async def fail_twice(_: web.Request) -> web.Response:
        return web.Response(status=500 if site.asked("/hook") < 3 else 200)

    job_id = await ended(store, site.at("/hook", fail_twice))
    await serve(webhook_backoff_seconds=[0.01])
    assert site.asked("/hook") == 1
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert webhook.state is WebhookState.PENDING
    assert webhook.next_ms is not None
    while site.asked("/hook") < 3:
        await serve(webhook_backoff_seconds=[0.01])
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == [500, 500, 200]
    assert webhook.state is WebhookState.DELIVERED
    assert len(set(site.bodies)) == 1
    assert len({request.headers["webhook-id"] for request in site.requests}) == 1
    assert store.stat("records") >= store.record_bytes(job_id)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [("/elsewhere", 302), ("/slow", "timeout"), ("/broken", "connection_failed"), ("/absent", 404)],
)
async def test_what_is_no_success_is_listed_as_what_it_was(
    store: Store, serve: Serve, site: Site, path: str, outcome: int | str
) -> None:
    async def hang(_: web.Request) -> web.Response:
        await forever()
        raise AssertionError

    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    site.redirects("/elsewhere", "/there")
    site.answers("/there")
    site.at("/slow", hang)
    site.at("/broken", break_off)
    job_id = await ended(store, site.url + path)
    await serve(webhook_seconds_max=0.2)
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == [outcome]
    assert webhook.state is WebhookState.PENDING
    assert site.asked("/there") == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/hook", "http://localhost:{port}/hook", "http://169.254.169.254/hook"]
)
async def test_a_webhook_has_no_forbidden_address(store: Store, serve: Serve, site: Site, url: str) -> None:
    job_id = await ended(store, url.format(port=site.port))
    await serve(fetch_allow_networks=[])
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == ["forbidden_address"]
    assert site.requests == []


async def test_a_webhook_that_is_gone_is_not_called_again(store: Store, serve: Serve, site: Site) -> None:
    job_id = await ended(store, site.answers("/hook", 410))
    await serve()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert (webhook.state, webhook.next_ms) == (WebhookState.GAVE_UP, None)


async def test_a_webhook_is_given_up_in_the_end(store: Store, serve: Serve, site: Site) -> None:
    job_id = await ended(store, site.answers("/hook", 500))
    await serve(webhook_backoff_seconds=[30], webhook_give_up_seconds=29)
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert webhook.state is WebhookState.GAVE_UP
    assert store.redis.zcard(keys.WEBHOOKS_DUE) == 0


async def test_the_secret_of_an_owner_may_come_back(store: Store, serve: Serve, site: Site) -> None:
    job_id = await ended(store, site.answers("/hook"))
    await serve(webhook_secrets={})
    assert site.requests == []
    store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
    await serve()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == ["no_secret", 200]


async def test_a_webhook_whose_caller_died_is_called_by_another(
    store: Store, serve: Serve, outbound: OutboundStore, site: Site
) -> None:
    job_id = await ended(store, site.answers("/hook"))
    assert [due.job.id for due in outbound.take_webhooks(10, seconds=30)] == [job_id]
    await serve()
    assert site.requests == [], "it belongs to the one that took it"
    store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
    await serve()
    assert site.asked("/hook") == 1


async def test_the_last_twenty_attempts_are_kept_and_their_room_is_counted(
    store: Store, serve: Serve, site: Site
) -> None:
    job_id = await ended(store, site.answers("/hook", 500))
    before = store.stat("records")
    for _ in range(22):
        store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
        await serve()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert len(webhook.attempts) == 20
    size = len(store.redis.hget(job_key(job_id), keys.FIELDS["webhook_attempts"]))
    assert size <= store.stat("records") - before <= size * 1.2 + 1


async def test_the_webhook_of_a_job_that_is_gone_is_forgotten(
    store: Store, serve: Serve, outbound: OutboundStore, site: Site
) -> None:
    job_id = await ended(store, site.answers("/hook"))
    (due,) = outbound.take_webhooks(10, seconds=30)
    await store.jobs.delete(job_id, OWNER)
    before = store.keys()
    outbound.record_attempt(due.job.id, Attempt(1, 500, 1), again_seconds=5)
    assert store.keys() == before
    assert store.redis.zcard(keys.WEBHOOKS_DUE) == 0


async def test_webhooks_that_hang_do_not_keep_images_waiting(
    store: Store, make_outbound_process: Callable[..., OutboundProcess], site: Site
) -> None:
    for number in range(8):
        await ended(store, site.at(f"/hang{number}", forever))
    await submit(store, *[site.answers(f"/{n}.png", body=b"quick") for n in range(10)], chunk_items=1)
    with ThreadPoolExecutor(1) as thread:
        task = asyncio.get_running_loop().run_in_executor(
            thread, lambda: make_outbound_process(fetch_concurrency=4, webhook_seconds_max=5).serve("task")
        )
        queue = f"{keys.READY}{MODEL}:i:{OWNER}"
        await eventually(lambda: store.redis.llen(queue) == 10, seconds=4, what="the images, before any hook gives up")
        await task


async def test_a_job_without_a_webhook_has_none(store: Store) -> None:
    job_id = await store.submit()
    store.finish(store.claim())
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert (webhook.url, webhook.state, webhook.attempts) == (None, WebhookState.NONE, [])


async def test_a_doorbell_rings_for_a_webhook_that_is_due(store: Store, outbound: OutboundStore) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + FETCH, "ring BELLID")
    outbound.sweep([FETCH], seconds=1)
    assert store.redis.llen(keys.QUEUE + FETCH) == 0
    await ended(store, "http://example.com/")
    store.redis.config_set("maxmemory", 1)
    outbound.sweep([FETCH], seconds=1)
    outbound.sweep([FETCH], seconds=1)
    store.redis.config_set("maxmemory", MAXMEMORY_BYTES)
    assert store.redis.llen(keys.QUEUE + FETCH) == 1
