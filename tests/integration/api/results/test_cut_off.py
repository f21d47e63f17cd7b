"""Lines that end in order are complete: a response that cannot be breaks its connection. `?from=` takes it up."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from jobs.ids import to_text
from jobs.store import keys
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.open_job_parts import Part
from jobs.store.job_hash import job_key
from tests.integration.api.conftest import StartApi
from tests.support.store import MODEL, OWNER, Store, make_chunk
from tests.support.uploads import finish_all
from tests.support.waiting import eventually

ITEMS, CHUNK_ITEMS = 200, 4
NDJSON = {"Accept": "application/x-ndjson", "Accept-Encoding": "identity"}
EndJob = Callable[[Store, bytes], Awaitable[None]]


async def finished_job(store: Store) -> bytes:
    job_id = await store.submit(*[b"image"] * ITEMS, chunk_items=CHUNK_ITEMS)
    assert finish_all(store) == ITEMS
    return job_id


async def add_and_finish(store: Store, part: Part) -> None:
    await store.open_jobs.add(part, make_chunk([b"image"] * CHUNK_ITEMS, CHUNK_ITEMS * part.chunks), bytes(16))
    assert finish_all(store) == CHUNK_ITEMS


async def received(api: httpx.AsyncClient, url: str, **headers: str) -> tuple[bytes, bool]:
    """What the client got, and whether the response was complete."""
    data = b""
    try:
        async with api.stream("GET", url, headers=NDJSON | headers) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                data += piece
    except httpx.RemoteProtocolError:
        return data, False
    return data, True


async def delete(store: Store, job_id: bytes) -> None:
    await store.jobs.delete(job_id, OWNER)


async def expire(store: Store, job_id: bytes) -> None:
    store.age(job_id, store.store_client.settings.result_ttl_seconds + 1)
    await store.jobs.sweep([MODEL])


async def evict(store: Store, job_id: bytes) -> None:
    """The records are over their budget, and the job is past the least time for which it is kept."""
    settings = store.store_client.settings
    store.age(job_id, settings.min_result_ttl_seconds + 1)
    store.redis.hincrby(keys.STATS, "records", settings.records_budget_bytes)
    await store.jobs.sweep([MODEL])


@pytest.mark.parametrize("query", ["", "?format=csv"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("end", [delete, expire, evict])
async def test_a_download_that_is_overtaken_by_the_end_of_its_job_breaks_off(
    api: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, end: EndJob, encoding: str, query: str
) -> None:
    job_id = await finished_job(store)
    read, reads = JobReader.stored_chunks, 0

    async def end_first(reader: JobReader, job: bytes, first: int, count: int) -> object:
        nonlocal reads
        reads += 1
        if reads == 3:
            await end(store, job)
            assert not store.redis.exists(job_key(job)), "the job is gone"
        return await read(reader, job, first, count)

    monkeypatch.setattr(JobReader, "stored_chunks", end_first)
    url = f"/v1/jobs/{to_text(job_id)}/results{query}"
    data, complete = await received(api, url, **{"Accept-Encoding": encoding})
    assert not complete
    if encoding == "gzip":
        with pytest.raises(EOFError):
            gzip.decompress(data)
    else:
        assert 0 < len(data.splitlines()) < ITEMS


async def test_followed_results_break_off_if_their_job_is_deleted(api: httpx.AsyncClient, store: Store) -> None:
    part, lines = await store.open(), list[str]()
    await add_and_finish(store, part)
    url = f"/v1/jobs/{to_text(part.job_id)}/results?follow=true"

    async def follow() -> None:
        async with api.stream("GET", url, headers=NDJSON) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)

    following = asyncio.create_task(follow())
    await eventually(lambda: len(lines) == CHUNK_ITEMS, what="the lines of the first chunk")
    await store.jobs.delete(part.job_id, OWNER)
    with pytest.raises(httpx.RemoteProtocolError):
        await following
    assert len(lines) == CHUNK_ITEMS


async def test_a_page_that_is_overtaken_by_a_delete_is_an_error(
    api: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await finished_job(store)
    items = JobReader.items

    async def delete_in_the_middle(reader: JobReader, job: object, **start: int) -> AsyncIterator[object]:
        async for at in items(reader, job, **start):  # type: ignore[arg-type]
            if at[2].index == 10:
                await store.jobs.delete(job_id, OWNER)
            yield at

    monkeypatch.setattr(JobReader, "items", delete_in_the_middle)
    answer = await api.get(f"/v1/jobs/{to_text(job_id)}/results?limit=1000")
    assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")


async def test_followed_results_break_off_at_their_time_limit(start_api: StartApi, store: Store) -> None:
    api = await start_api(held_stream_seconds_max=0.5)
    part = await store.open()
    await add_and_finish(store, part)
    url = f"/v1/jobs/{to_text(part.job_id)}/results?follow=true"
    async with asyncio.timeout(30):
        data, complete = await received(api, url)
    assert (len(data.splitlines()), complete) == (CHUNK_ITEMS, False)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 66, 199, 200, 5000])
@pytest.mark.parametrize("query", ["", "&follow=true", "&status=succeeded"])
async def test_lines_start_at_an_index(api: httpx.AsyncClient, store: Store, start: int, query: str) -> None:
    url = f"/v1/jobs/{to_text(await finished_job(store))}/results?from={start}{query}"
    data, complete = await received(api, url)
    assert complete
    assert [json.loads(line)["index"] for line in data.splitlines()] == list(range(start, ITEMS))


async def test_a_csv_that_goes_on_has_no_head(api: httpx.AsyncClient, store: Store) -> None:
    url = f"/v1/jobs/{to_text(await finished_job(store))}/results?format=csv"
    whole, rest = (await api.get(url)).text, (await api.get(f"{url}&from=150")).text
    assert whole.endswith(rest)
    assert rest.startswith('"150",')


async def test_pages_start_at_a_cursor_only(api: httpx.AsyncClient, store: Store) -> None:
    answer = await api.get(f"/v1/jobs/{to_text(await finished_job(store))}/results?from=3")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_follower_that_goes_on_waits_for_what_is_to_come(api: httpx.AsyncClient, store: Store) -> None:
    part = await store.open()
    await add_and_finish(store, part)
    url = f"/v1/jobs/{to_text(part.job_id)}/results?follow=true&from=6"
    following = asyncio.create_task(received(api, url))
    await add_and_finish(store, part)
    await store.open_jobs.seal(part.job_id, OWNER)
    data, complete = await following
    assert complete
    assert [json.loads(line)["index"] for line in data.splitlines()] == [6, 7]
