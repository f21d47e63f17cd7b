"""The outbound process in this process calls webhooks of real servers."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Signer

from jobs.ids import to_text
from jobs.store import keys
from jobs.store.for_api.webhooks import WebhookState, read_webhook
from jobs.store.for_workers.outbound import OutboundStore
from jobs.store.job_hash import job_key
from jobs.store.keys import FETCH
from jobs.webhooks import Attempt
from tests.support.outbound import PATIENT, SECRET, MakeOutboundProcess, RunSlice, submit_urls
from tests.support.processes import MAXMEMORY_BYTES
from tests.support.store import MODEL, OWNER, Store
from tests.support.waiting import eventually
from tests.support.web import Site, forever


async def ended(store: Store, url: str, *, owner: str = OWNER) -> bytes:
    """A job of one image with a webhook, that has completed."""
    submission = await store.submission(owner=owner)
    submission.webhook_url = url
    await store.submitter.enqueue(submission)
    store.finish(store.claim())
    return submission.id


async def test_a_webhook_is_called_signed_and_has_the_jobs_counts(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    job_id = await ended(store, site.responds("/hook", 204) + "?token=t")
    await run_slice()

    assert site.requested("/hook") == 1
    request, body = site.requests[-1], site.bodies[-1]
    assert (request.method, request.path_qs, request.content_type) == ("POST", "/hook?token=t", "application/json")
    payload = Signer(SECRET).verify(body, dict(request.headers))
    job = await store.get(job_id)
    assert payload["type"] == "job.completed"
    assert payload["data"]["id"] == request.headers["webhook-id"] == to_text(job_id)
    assert payload["data"]["counts"] == {"total": 1, "succeeded": 1, "failed": 0, "canceled": 0}
    assert payload["data"]["links"]["self"] == f"/v1/jobs/{to_text(job_id)}"
    webhook = await read_webhook(store.store_client, job)
    assert (webhook.state, webhook.next_ms) == (WebhookState.DELIVERED, None)
    assert [attempt.outcome for attempt in webhook.attempts] == [204]


async def test_a_canceled_job_calls_its_webhook_too(store: Store, run_slice: RunSlice, site: Site) -> None:
    submission = await store.submission()
    submission.webhook_url = site.responds("/hook")
    await store.submitter.enqueue(submission)
    await store.jobs.cancel(submission.id, OWNER)
    await run_slice()
    assert json.loads(site.bodies[-1])["type"] == "job.canceled"
    assert json.loads(site.bodies[-1])["data"]["counts"]["canceled"] == 1


async def test_a_webhook_that_fails_is_called_again_with_the_same_body(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    async def fail_twice(_: web.Request) -> web.Response:
        return web.Response(status=500 if site.requested("/hook") < 3 else 200)

    async def run_when_due() -> None:
        store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
        await run_slice()

    job_id = await ended(store, site.at("/hook", fail_twice))
    await run_slice()
    assert site.requested("/hook") == 1
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert webhook.state is WebhookState.PENDING
    assert webhook.next_ms is not None
    while site.requested("/hook") < 3:
        await run_when_due()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == [500, 500, 200]
    assert webhook.state is WebhookState.DELIVERED
    assert len(set(site.bodies)) == 1
    assert len({request.headers["webhook-id"] for request in site.requests}) == 1
    assert store.stat("records") >= store.record_bytes(job_id)


@pytest.mark.parametrize(
    ("path", "outcome", "settings"),
    [
        ("/elsewhere", 302, {}),
        ("/slow", "timeout", {"webhook_seconds_max": 0.2}),
        ("/broken", "connection_failed", {}),
        ("/absent", 404, {}),
    ],
)
async def test_a_failed_attempt_is_listed_with_its_reason(
    store: Store, run_slice: RunSlice, site: Site, path: str, outcome: int | str, settings: dict[str, float]
) -> None:
    async def hang(_: web.Request) -> web.Response:
        await forever()
        raise AssertionError

    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    site.redirects("/elsewhere", "/there")
    site.responds("/there")
    site.at("/slow", hang)
    site.at("/broken", break_off)
    job_id = await ended(store, site.url + path)
    await run_slice(**settings)
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == [outcome]
    assert webhook.state is WebhookState.PENDING
    assert site.requested("/there") == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/hook", "http://localhost:{port}/hook", "http://169.254.169.254/hook"]
)
async def test_a_webhook_at_a_forbidden_address_is_not_called(
    store: Store, run_slice: RunSlice, site: Site, url: str
) -> None:
    job_id = await ended(store, url.format(port=site.port))
    await run_slice(fetch_allow_networks=[])
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == ["forbidden_address"]
    assert site.requests == []


async def test_a_webhook_that_responds_410_is_not_called_again(store: Store, run_slice: RunSlice, site: Site) -> None:
    job_id = await ended(store, site.responds("/hook", 410))
    await run_slice()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert (webhook.state, webhook.next_ms) == (WebhookState.GAVE_UP, None)


async def test_a_webhook_fails_after_its_last_attempt(store: Store, run_slice: RunSlice, site: Site) -> None:
    job_id = await ended(store, site.responds("/hook", 500))
    await run_slice(webhook_backoff_seconds=[30], webhook_give_up_seconds=29)
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert webhook.state is WebhookState.GAVE_UP
    assert store.redis.zcard(keys.WEBHOOKS_DUE) == 0


async def test_a_webhook_is_called_once_its_owner_has_a_secret_again(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    job_id = await ended(store, site.responds("/hook"))
    await run_slice(webhook_secrets={})
    assert site.requests == []
    store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
    await run_slice()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert [attempt.outcome for attempt in webhook.attempts] == ["no_secret", 200]


async def test_a_webhook_whose_caller_died_is_called_by_another(
    store: Store, run_slice: RunSlice, outbound: OutboundStore, site: Site
) -> None:
    job_id = await ended(store, site.responds("/hook"))
    assert [due.job.id for due in outbound.take_webhooks(10, seconds=30)] == [job_id]
    await run_slice()
    assert site.requests == [], "the webhook is leased to the process that took it"
    store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
    await run_slice()
    assert site.requested("/hook") == 1


async def test_the_last_twenty_attempts_are_stored_and_their_bytes_are_counted(
    store: Store, run_slice: RunSlice, site: Site
) -> None:
    job_id = await ended(store, site.responds("/hook", 500))
    before = store.stat("records")
    for _ in range(22):
        store.redis.zadd(keys.WEBHOOKS_DUE, {job_id: 1})
        await run_slice()
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert len(webhook.attempts) == 20
    size = len(store.redis.hget(job_key(job_id), keys.FIELDS["webhook_attempts"]))
    assert size <= store.stat("records") - before <= size * 1.2 + 1


async def test_an_attempt_for_a_deleted_job_is_not_recorded(
    store: Store, run_slice: RunSlice, outbound: OutboundStore, site: Site
) -> None:
    job_id = await ended(store, site.responds("/hook"))
    (due,) = outbound.take_webhooks(10, seconds=30)
    await store.jobs.delete(job_id, OWNER)
    before = store.keys()
    outbound.record_attempt(due.job.id, Attempt(1, 500, 1), again_seconds=5)
    assert store.keys() == before
    assert store.redis.zcard(keys.WEBHOOKS_DUE) == 0


async def test_webhooks_that_hang_do_not_delay_images(
    store: Store, make_outbound_process: MakeOutboundProcess, site: Site
) -> None:
    released = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    for number in range(8):
        await ended(store, site.at(f"/hang{number}", hang))
    await submit_urls(store, *[site.responds(f"/{n}.png", body=b"quick") for n in range(10)], chunk_items=1)
    with ThreadPoolExecutor(1) as thread:
        task = asyncio.get_running_loop().run_in_executor(
            thread, lambda: make_outbound_process(fetch_concurrency=4, **PATIENT).run_slice("task")
        )
        queue = f"{keys.READY}{MODEL}:i:{OWNER}"
        await eventually(lambda: store.redis.llen(queue) == 10, what="the images, while all webhooks hang")
        released.set()
        await task


async def test_a_job_without_a_webhook_has_none(store: Store) -> None:
    job_id = await store.submit()
    store.finish(store.claim())
    webhook = await read_webhook(store.store_client, await store.get(job_id))
    assert (webhook.url, webhook.state, webhook.attempts) == (None, WebhookState.NONE, [])


async def test_the_sweep_rings_the_doorbell_for_a_webhook_that_is_due(store: Store, outbound: OutboundStore) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + FETCH, "ring BELLID")
    outbound.sweep([FETCH], seconds=1)
    assert store.redis.llen(keys.QUEUE + FETCH) == 0
    await ended(store, "http://example.com/")
    store.redis.config_set("maxmemory", 1)
    outbound.sweep([FETCH], seconds=1)
    outbound.sweep([FETCH], seconds=1)
    store.redis.config_set("maxmemory", MAXMEMORY_BYTES)
    assert store.redis.llen(keys.QUEUE + FETCH) == 1
