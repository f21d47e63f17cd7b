"""Jobs that are followed by server-sent events, and how many streams there may be."""

import asyncio
import json

import httpx
import pytest

from jobs.ids import to_text
from tests.integration.api.conftest import StartApi
from tests.support.store import Store
from tests.support.waiting import eventually


async def events_of(api: httpx.AsyncClient, path: str, **headers: str) -> list[dict[str, str]]:
    found = list[dict[str, str]]()
    async with api.stream("GET", f"{path}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in answer.headers
        async for block in answer.aiter_text():
            for event in block.strip().split("\n\n"):
                found.append(dict(line.split(": ", 1) for line in event.splitlines()))
    return found


async def test_events_are_counts_as_they_change_and_then_the_end(api: httpx.AsyncClient, store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 4, chunk_items=2)
    path = f"/v1/jobs/{to_text(job_id)}"
    watching = asyncio.create_task(events_of(api, path))
    await eventually(lambda: finish_one(store) or watching.done(), what="work")
    await eventually(lambda: finish_one(store) or watching.done(), what="work")
    found = await watching

    kinds = [event["event"] for event in found if "event" in event]
    assert kinds[0] == "counts"
    assert kinds[-1] == "end"
    last = json.loads(found[-1]["data"])
    assert (last["status"], last["counts"]["succeeded"]) == ("completed", 4)
    assert json.loads(found[-2]["data"])["counts"]["pending"] == 0

    again = await events_of(api, path)
    assert [event.get("event") for event in again] == [None, "counts", "end"]
    seen = again[1]["id"]
    resumed = await events_of(api, path, **{"Last-Event-ID": seen})
    assert [event.get("event") for event in resumed] == [None, "end"], "an event is not sent again"
    assert (await api.get(f"{path}/events", headers={"Last-Event-ID": "end"})).status_code == 204


def finish_one(store: Store) -> bool:
    lease = store.claim(items=2)
    return bool(lease.chunks) and store.finish(lease) > 0


async def test_a_silent_event_stream_has_heartbeats(
    start_api: StartApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.results.events.HEARTBEAT_SECONDS", 0.05)
    api = await start_api()
    job_id = await store.submit(b"image")
    async with api.stream("GET", f"/v1/jobs/{to_text(job_id)}/events") as answer:
        async for text in answer.aiter_text():
            if ": still running" in text:
                break


async def test_followed_streams_have_a_limit(start_api: StartApi, store: Store) -> None:
    api = await start_api(held_streams_max=1)
    job_id = await store.submit(b"image")
    path = f"/v1/jobs/{to_text(job_id)}"
    async with api.stream("GET", f"{path}/events") as answer:
        stream = answer.aiter_text()
        await anext(stream)
        for refused in (f"{path}/events", f"{path}/results?follow=true&format=csv"):
            second = await api.get(refused)
            assert (second.status_code, second.json()["code"]) == (503, "too_many_streams")
            assert "Retry-After" in second.headers


@pytest.mark.parametrize("path", ["events", "results?follow=true&format=csv"])
async def test_a_head_request_opens_no_followed_stream(start_api: StartApi, store: Store, path: str) -> None:
    api = await start_api(held_streams_max=1)
    job_id = await store.submit(b"image")
    for _ in range(3):
        async with asyncio.timeout(30):
            answer = await api.head(f"/v1/jobs/{to_text(job_id)}/{path}")
        assert (answer.status_code, answer.content) == (200, b"")
