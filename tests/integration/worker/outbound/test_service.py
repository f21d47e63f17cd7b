"""Jobs by reference and webhooks, through real processes from the submit to the result."""

import json
import os
import signal
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Signer

from jobs.store import keys
from jobs.store.keys import OwnerToken
from tests.support.processes import MAXMEMORY_BYTES, Process, children_of
from tests.support.s3 import serving_s3
from tests.support.stack import Stack
from tests.support.waiting import eventually, wait_until
from tests.support.web import Site

SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
QUICK = {"LEASE_SECONDS": "0.7", "RENEW_SECONDS": "0.2", "REAP_SECONDS": "0.2"}
ENDED = ("completed", "failed", "canceled")
StartOutbound = Callable[..., Process]


@pytest.fixture
def start_outbound(stack: Stack, tmp_path: Path) -> Iterator[StartOutbound]:
    with ExitStack() as started:

        def start(children: int = 1, **settings: str) -> Process:
            environment = {
                "REDIS_URL": stack.valkey.url,
                "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
                "OUTBOUND_CHILDREN": str(children),
                "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
                "WEBHOOK_SECRETS": json.dumps({"public": SECRET}),
                "WEBHOOK_BACKOFF_SECONDS": "[0.1]",
                **QUICK,
                **settings,
            }
            log = tmp_path / "outbound.log"
            outbound = started.enter_context(Process([sys.executable, "-m", "worker.outbound"], log, environment))

            def is_up() -> bool:
                assert outbound.running(), outbound.output()
                return stack.redis.zcard(keys.HEARTBEATS + keys.FETCH) >= children

            wait_until(is_up, what="the outbound worker")
            return outbound

        yield start


async def client_of(stack: Stack, **settings: str) -> httpx.AsyncClient:
    api = stack.api(WEBHOOK_SECRETS=json.dumps({"public": SECRET}), **settings)
    return httpx.AsyncClient(base_url=api.url, timeout=40)


async def ended(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    found = (await client.get(f"{job['links']['self']}?wait=30")).json()
    assert found["status"] in ENDED, found
    return dict(found)


async def items(client: httpx.AsyncClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    found = (await client.get(f"{job['links']['results']}?limit=1000")).json()
    assert found["next_cursor"] is None
    return list(found["items"])


def pids_at_work(stack: Stack) -> set[int]:
    return {OwnerToken.unpack(token).pid for token in stack.redis.zrange(keys.LEASES, 0, -1)}


def pid_of_client(outbound: Process, port: int) -> int:
    """The child that has the connection from this port."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    sockets = {f"socket:[{line[9]}]" for line in lines if int(line[1].partition(":")[2], 16) == port}
    for pid in children_of(outbound.pid):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(file.readlink()) in sockets:
                    return pid
    raise AssertionError("no child has it")


async def test_a_job_by_reference_is_fetched_and_classified(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    urls = [site.responds("/shirt.png", body=shirt), site.url + "/absent.png", "http://169.254.169.254/", "no url"]
    start_outbound()
    stack.worker(children=1)
    async with await client_of(stack) as client:
        response = await client.post("/v1/jobs", json={"urls": urls})
        assert response.status_code == 202, response.text
        job = await ended(client, response.json())
        found = await items(client, job)
    assert (job["status"], job["counts"]["succeeded"], job["counts"]["failed"]) == ("completed", 1, 3)
    assert [item.get("class") or item["error"]["code"] for item in found] == [
        "Shirt",
        "fetch_not_found",
        "forbidden_address",
        "invalid_url",
    ]
    assert found[0]["name"] == urls[0]


async def test_an_s3_prefix_is_one_job(stack: Stack, start_outbound: StartOutbound, shirt: bytes) -> None:
    with serving_s3() as s3:
        s3.bucket("photos")
        s3.put("photos", {f"many/{n:04}.png": shirt for n in range(100)})
        settings = {
            "S3_ENDPOINT_URL": s3.settings["s3_endpoint_url"],
            "S3_ALLOW_HTTP": "true",
            "S3_BUCKETS": '["photos"]',
            "S3_ACCESS_KEY_ID": "key",
            "S3_SECRET_ACCESS_KEY": "secret",
        }
        start_outbound(children=2, **settings)
        stack.worker(children=1)
        async with await client_of(stack, **settings) as client:
            response = await client.post("/v1/jobs", json={"urls": ["s3://photos/many/"]})
            assert response.status_code == 202, response.text
            job = await ended(client, response.json())
            found = await items(client, job)
    assert (job["counts"]["succeeded"], job["counts"]["failed"]) == (100, 0)
    assert [item["name"] for item in found] == [f"s3://photos/many/{n:04}.png" for n in range(100)]
    assert {item["class"] for item in found} == {"Shirt"}


async def test_a_child_that_is_killed_while_it_fetches_loses_nothing(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    outbound = start_outbound(children=2)
    stack.worker(children=1)

    async def kill_the_first(request: web.Request) -> web.Response:
        if site.requested("/0.png") == 1 and request.path == "/0.png":
            (token,) = (t for t in stack.redis.zrange(keys.LEASES, 0, -1))
            os.kill(OwnerToken.unpack(token).pid, signal.SIGKILL)
        return web.Response(body=shirt)

    urls = [site.at(f"/{n}.png", kill_the_first) for n in range(4)]
    async with await client_of(stack) as client:
        job = await ended(client, (await client.post("/v1/jobs", json={"urls": urls})).json())
    assert (job["status"], job["counts"]["succeeded"]) == ("completed", 4)
    assert site.requested("/0.png") == 2
    assert outbound.running()


async def test_two_processes_fetch_a_url_of_a_job_once(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    async def wait_for_both(_: web.Request) -> web.Response:
        await eventually(lambda: len(pids_at_work(stack)) == 2, what="both processes at a chunk with this URL")
        return web.Response(body=shirt)

    start_outbound(children=2, FETCH_CONCURRENCY="8")  # the items of one chunk: the other process takes the second
    stack.worker(children=1)
    async with await client_of(stack) as client:
        job = (await client.post("/v1/jobs", json={"urls": [site.at("/a.png", wait_for_both)] * 80})).json()
        found = await ended(client, job)
    assert (found["status"], found["counts"]["succeeded"]) == ("completed", 80)
    assert site.requested("/a.png") == 1


async def test_if_the_process_that_fetches_is_killed_the_one_that_waits_for_it_fetches(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    async def kill_the_first(request: web.Request) -> web.Response:
        if site.requested("/a.png") == 1:
            await eventually(lambda: len(pids_at_work(stack)) == 2, what="both processes at a chunk with this URL")
            assert request.transport is not None
            os.kill(pid_of_client(outbound, request.transport.get_extra_info("peername")[1]), signal.SIGKILL)
        return web.Response(body=shirt)

    outbound = start_outbound(children=2, FETCH_CONCURRENCY="8")
    stack.worker(children=1)
    async with await client_of(stack) as client:
        job = (await client.post("/v1/jobs", json={"urls": [site.at("/a.png", kill_the_first)] * 16})).json()
        found = await ended(client, job)
    assert (found["status"], found["counts"]["succeeded"]) == ("completed", 16)
    assert site.requested("/a.png") == 2


async def test_the_work_of_a_killed_outbound_worker_is_done_by_the_next(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    first = start_outbound()
    stack.worker(children=1, **QUICK)

    async def kill_all(_: web.Request) -> web.Response:
        if site.requested("/a.png") == 1:
            children = children_of(first.pid)
            first.kill()
            for child in children:
                os.kill(child, signal.SIGKILL)
        return web.Response(body=shirt)

    async with await client_of(stack) as client:
        job = (await client.post("/v1/jobs", json={"urls": [site.at("/a.png", kill_all)]})).json()
        await eventually(lambda: not first.running(), what="the end of the first")
        start_outbound()
        assert (await ended(client, job))["status"] == "completed"
    assert site.requested("/a.png") == 2


async def test_a_webhook_is_called_when_its_job_has_ended_and_again_after_a_failure(
    stack: Stack, start_outbound: StartOutbound, site: Site, shirt: bytes
) -> None:
    async def fail_once(_: web.Request) -> web.Response:
        return web.Response(status=500 if site.requested("/hook") == 1 else 200)

    url = site.at("/hook", fail_once)
    start_outbound()
    stack.worker(children=1)
    async with await client_of(stack) as client:
        response = await client.post(
            "/v1/jobs", params={"webhook_url": f"{url}?token=t"}, content=shirt, headers={"Content-Type": "image/png"}
        )
        assert response.status_code == 202, response.text
        job = response.json()
        await eventually(lambda: site.requested("/hook") == 2, what="two calls")
        payload = Signer(SECRET).verify(site.bodies[-1], dict(site.requests[-1].headers))
        assert (payload["type"], payload["data"]["id"]) == ("job.completed", job["id"])
        path = f"{job['links']['self']}/webhook"
        webhook = (await client.get(path)).json()
        while webhook["state"] == "pending":
            webhook = (await client.get(path)).json()
    assert webhook["state"] == "delivered"
    assert webhook["url"] == url, "the query may contain a secret"
    assert [attempt["status"] for attempt in webhook["attempts"]] == [500, 200]
    assert all(attempt["error"] is None and attempt["duration_ms"] >= 0 for attempt in webhook["attempts"])


async def test_a_webhook_needs_a_secret_to_sign_with(stack: Stack, shirt: bytes) -> None:
    async with await client_of(stack, API_KEYS='{"alice": "a-key-of-sixteen-characters"}') as client:
        client.headers["Authorization"] = "Bearer a-key-of-sixteen-characters"
        response = await client.post(
            "/v1/jobs",
            params={"webhook_url": "https://example.com/"},
            content=shirt,
            headers={"Content-Type": "image/png"},
        )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "WEBHOOK_SECRETS" in response.json()["detail"]
