"""The client against a server that fails, breaks off, or is none."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from darkroom import AsyncDarkroom, AsyncJob, DarkroomError, Unreachable
from darkroom._http import Retries
from darkroom.errors import InvalidRequest, QueueFull, api_error

from tests.support.processes import free_port
from tests.support.web import Site, serving_site
from tests.unit.client.answers import COUNTS, JOB, JOB_ID, TIME, answer, item, lines, one_after_the_other, problem


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as site:
        yield site


@pytest.fixture
async def darkroom(site: Site) -> AsyncIterator[AsyncDarkroom]:
    async with AsyncDarkroom(f"{site.url}/prefix/", retry_seconds=5) as darkroom:
        yield darkroom


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def job_of(site: Site, darkroom: AsyncDarkroom) -> AsyncJob:
    site.at(f"/prefix/v1/jobs/{JOB_ID}", answer(JOB))
    return await darkroom.job(JOB_ID)


async def test_a_post_is_tried_again_under_one_key(site: Site, darkroom: AsyncDarkroom) -> None:
    failures = (
        hang_up,
        problem(429, "rate_limited", **{"Retry-After": "0"}), problem(503, "queue_full", **{"Retry-After": "0"}),
        problem(409, "idempotency_in_progress", **{"Retry-After": "0"}), problem(502, "api_unreachable"),
    )  # fmt: skip
    site.at("/prefix/v1/jobs", one_after_the_other(*failures, answer(JOB)))
    job = await darkroom.submit([b"picture"] * 3)
    assert (job.status, job.ended, job.counts.total) == ("a new state", True, 3)
    assert job.raw["a new field"] == 1
    keys = {request.headers["Idempotency-Key"] for request in site.requests}
    assert (len(keys), len(site.requests)) == (1, 6)
    assert len(set(site.bodies)) == 1


async def test_what_is_refused_is_not_tried_again(site: Site, darkroom: AsyncDarkroom) -> None:
    site.at("/prefix/v1/jobs", problem(422, "invalid_request", **{"X-Request-Id": "r-1"}))
    with pytest.raises(InvalidRequest) as refused:
        await darkroom.submit([b"picture"])
    assert (len(site.requests), refused.value.request_id) == (1, "r-1")


async def test_a_wait_that_is_longer_than_the_tries_is_an_error_at_once(site: Site, darkroom: AsyncDarkroom) -> None:
    site.at("/prefix/v1/jobs", problem(503, "queue_full", **{"Retry-After": "3600"}))
    with pytest.raises(QueueFull):
        await darkroom.submit([b"picture"])
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (200, b"<html>", {"Content-Type": "text/html"}, "answers 200 with text/html: this is no Darkroom server"),
        (404, b"<html>", {"Content-Type": "text/html"}, "answers 404 with text/html: this is no Darkroom server"),
        (404, b'{"detail": "Not Found"}', {"Content-Type": "application/json"}, "this is no Darkroom server"),
        (200, b"[]", {"Content-Type": "application/json"}, "this is no Darkroom server"),
        (200, b"{", {"Content-Type": "application/json"}, "answers 200 with broken JSON"),
        (301, b"", {"Location": "https://elsewhere/"}, "redirects to https://elsewhere/: use the address"),
    ],
)
async def test_another_server_is_named(
    site: Site, darkroom: AsyncDarkroom, status: int, body: bytes, headers: dict[str, str], says: str
) -> None:
    site.responds("/prefix/v1/models", status, body, **headers)
    with pytest.raises(Unreachable, match=says):
        await darkroom.models()
    assert len(site.requests) == 1
    job = await job_of(site, darkroom)
    site.responds(f"/prefix/v1/jobs/{JOB_ID}/results", status, body, **headers)
    with pytest.raises(Unreachable):
        assert [it async for it in job.results()] == []


async def test_a_server_without_the_route_is_older(site: Site, darkroom: AsyncDarkroom) -> None:
    site.at("/prefix/v1/server", problem(404, "not_found"))
    with pytest.raises(DarkroomError, match="is older than this client"):
        await darkroom.server()
    lane = {"images": 2, "oldest_seconds": None}
    state = {
        "version": "0.2", "time": TIME, "default_model": None, "limits": {"items_max": 5}, "queue": {"bulk": lane},
        "images_per_second": 3.5, "workers": 1, "budgets": {}, "a new field": 1,
    }  # fmt: skip
    site.at("/prefix/v1/server", answer(state))
    server = await darkroom.server()
    assert (server.version, server.time.year, server.queue["bulk"]["images"]) == ("0.2", 2026, 2)


async def test_no_server_is_unreachable() -> None:
    async with AsyncDarkroom(f"http://127.0.0.1:{free_port()}", retry_seconds=0) as darkroom:
        with pytest.raises(Unreachable, match="does not answer"):
            await darkroom.models()


async def test_a_wait_takes_as_long_as_it_was_asked_for(site: Site, darkroom: AsyncDarkroom) -> None:
    """Longer than `timeout_seconds`, after which a request that asks for no wait is given up."""
    job = await job_of(site, darkroom)

    async def held(_: web.Request) -> web.Response:
        await asyncio.sleep(1.5)
        return web.json_response(JOB)

    site.at(f"/prefix/v1/jobs/{JOB_ID}", held)
    async with AsyncDarkroom(darkroom.url, timeout_seconds=1, retry_seconds=0) as impatient:
        assert (await replace(job, _client=impatient).wait(5)).ended
        assert float(site.requests[-1].query["wait"]) > 4
        assert len(site.requests) == 2, "the job, and the wait"
        with pytest.raises(Unreachable, match="ReadTimeout"):
            await impatient.job(JOB_ID)


async def test_results_go_on_where_they_broke_off(site: Site, darkroom: AsyncDarkroom) -> None:
    """Also in the middle of a line; and only a line feed ends a line."""
    job = await job_of(site, darkroom)
    parts = (
        problem(503, "stream_interrupted", **{"Retry-After": "0"}),
        lines(item(0), item(1, "a\u2028b\x85c"), item(2)[:20], whole=False),
        hang_up,
        lines(item(2)),
    )
    site.at(f"/prefix/v1/jobs/{JOB_ID}/results", one_after_the_other(*parts))
    items = [it async for it in job.results(follow=True)]
    assert [it.index for it in items] == [0, 1, 2]
    assert items[1].name == "a\u2028b\x85c"
    asked = [request.query.get("from") for request in site.requests[1:]]
    assert asked == [None, None, "2", "2"]


async def test_progress_goes_on_until_the_end(site: Site, darkroom: AsyncDarkroom) -> None:
    job = await job_of(site, darkroom)
    counts = json.dumps({"status": "running", "counts": COUNTS | {"pending": 1}, "eta_seconds": 1.0})
    running = JOB | {"completed_at": None}
    site.at(f"/prefix/v1/jobs/{JOB_ID}", answer(running))
    job = await job.refresh()
    first = lines(f"retry: 2000\n\nevent: counts\nid: 1\ndata: {counts}\n\n", kind="text/event-stream")
    last = lines(f": still\n\nevent: end\nid: end\ndata: {json.dumps(JOB)}\n\n", kind="text/event-stream")
    site.at(f"/prefix/v1/jobs/{JOB_ID}/events", one_after_the_other(first, hang_up, last))
    seen = [(it.status, it.ended) async for it in job.progress()]
    assert seen == [("running", False), ("a new state", True)]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x/?a=b", "x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        AsyncDarkroom(url)


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel", "a\0"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="the key has") as refused:
        AsyncDarkroom(api_key=key)
    assert key not in str(refused.value)


def test_tries_have_pauses_and_an_end() -> None:
    error = api_error(503, {"code": "store_unavailable"}, None, None)
    retries = Retries(100)
    pauses = [retries.pause_seconds(error) for _ in range(12)]
    assert pauses[0] <= 0.2
    assert 5 <= max(pauses) <= 10
    with pytest.raises(type(error)):
        Retries(0).pause_seconds(error)
    held = api_error(409, {"code": "idempotency_in_progress"}, None, "100")
    assert Retries(10).pause_seconds(held) >= 100, "a part of a killed server is held for minutes"
