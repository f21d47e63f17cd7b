"""Results while a job runs: pages, NDJSON and CSV, followed or not, gzip; server-sent events."""

import asyncio
import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import httpx
import pytest

from jobs.codec import pack_outcomes
from jobs.ids import to_text
from jobs.item_codes import ItemCode
from jobs.records import Failure, Outcome, Prediction, Unfamiliar
from jobs.store.for_workers.leases import FinishedChunk
from tests.support.spreadsheets import DISARMED, HARMLESS
from tests.support.store import COAT, OWNER, Store, make_chunk
from tests.support.waiting import eventually

NDJSON = {"Accept": "application/x-ndjson"}
MIXED: list[Outcome] = [
    [Prediction(4, 0.648812), Prediction(6, 0.2011345678)],
    Failure(ItemCode.NOT_AN_IMAGE),
    [Prediction(0, 1.0)],
    Unfamiliar([Prediction(9, 1e-7), Prediction(8, 1e-8)]),
]


def finish(store: Store, outcomes: list[Outcome] | None = None, *, items: int = 64) -> None:
    """Finish the ready chunks, each with these outcomes repeated."""
    lease = store.claim(items=items)
    done = []
    for claimed in lease.chunks:
        given = [(outcomes or [COAT])[n % len(outcomes or [COAT])] for n in range(claimed.chunk_ref.items)]
        succeeded = sum(not isinstance(outcome, Failure) for outcome in given)
        done.append(FinishedChunk(claimed.chunk_ref, succeeded, pack_outcomes("fmnist-mlp@1", given)))
    store.leases.finish(lease.token, done)


async def mixed(store: Store) -> str:
    job_id = await store.submit(*[b"image"] * 8, chunk_items=4)
    finish(store, MIXED)
    return f"/v1/jobs/{to_text(job_id)}/results"


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_lines_show_the_same_as_pages(api: httpx.AsyncClient, store: Store) -> None:
    path = await mixed(store)
    pages = (await api.get(path)).json()["items"]
    answer = await api.get(path, headers=NDJSON)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert lines(answer) == pages
    assert lines(await api.get(f"{path}?format=ndjson")) == pages
    assert [item["status"] for item in pages] == ["succeeded", "failed", "succeeded", "succeeded"] * 2
    assert [item.get("warnings") for item in pages] == [None, None, None, ["unfamiliar"]] * 2


async def test_csv_has_a_row_for_each_item(api: httpx.AsyncClient, store: Store) -> None:
    path = await mixed(store)
    answer = await api.get(path, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(StringIO(answer.text)))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    assert len(rows) == 8
    assert rows[0] == {
        "index": "0",
        "name": "0.png",
        "status": "succeeded",
        "class": "Coat",
        "confidence": "0.648812",
        "model": "fmnist-mlp@1",
        "error_code": "",
        "error_detail": "",
        "warnings": "",
    }
    assert (rows[5]["status"], rows[5]["error_code"], rows[5]["class"]) == ("failed", "not_an_image", "")
    assert [row["warnings"] for row in rows] == ["", "", "", "unfamiliar"] * 2


async def test_names_come_back_whole_and_do_no_harm_in_a_spreadsheet(api: httpx.AsyncClient, store: Store) -> None:
    names = [*DISARMED, *HARMLESS, None]
    submission = await store.submission(*[b"image"] * len(names))
    assert submission.chunk is not None
    submission.chunk.names = names
    await store.submitter.enqueue(submission)
    finish(store)
    path = f"/v1/jobs/{to_text(submission.id)}/results"

    assert [line["name"] for line in lines(await api.get(path, headers=NDJSON))] == names
    text = (await api.get(f"{path}?format=csv")).text
    cells = [row["name"] for row in csv.DictReader(StringIO(text, newline=""))]
    assert cells == [*DISARMED.values(), *HARMLESS, ""]
    assert text.splitlines()[1] == '"0","\'=1+1.png","succeeded","Coat","0.750000","fmnist-mlp@1","","",""'


async def test_a_csv_has_a_byte_order_mark_if_asked_for_one(api: httpx.AsyncClient, store: Store) -> None:
    path = await mixed(store)
    plain, marked = [(await api.get(f"{path}?format=csv{bom}")).content for bom in ("", "&bom=true")]
    assert marked == codecs.BOM_UTF8 + plain
    assert not (await api.get(f"{path}?format=csv&bom=true&from=1")).content.startswith(codecs.BOM_UTF8)
    refused = await api.get(f"{path}?format=ndjson&bom=true")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("status", ["succeeded", "failed", "pending", "canceled"])
async def test_a_status_filters_every_form(api: httpx.AsyncClient, store: Store, status: str) -> None:
    path = await mixed(store)
    expected = [item for item in (await api.get(path)).json()["items"] if item["status"] == status]
    assert len(expected) == {"succeeded": 6, "failed": 2}.get(status, 0)
    assert (await api.get(f"{path}?status={status}")).json()["items"] == expected
    assert lines(await api.get(f"{path}?status={status}", headers=NDJSON)) == expected
    assert len((await api.get(f"{path}?status={status}&format=csv")).text.splitlines()) == 1 + len(expected)


async def test_items_that_are_pending_or_canceled_differ(api: httpx.AsyncClient, store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 8, chunk_items=4)
    path = f"/v1/jobs/{to_text(job_id)}/results"
    finish(store, items=4)
    assert len(lines(await api.get(path, headers=NDJSON))) == 4, "only those that have ended"
    assert len(lines(await api.get(f"{path}?status=pending", headers=NDJSON))) == 4
    await store.jobs.cancel(job_id, OWNER)
    canceled = lines(await api.get(f"{path}?status=canceled", headers=NDJSON))
    assert canceled == (await api.get(path)).json()["items"][4:]


@pytest.mark.parametrize("path", ["?format=json", "?format=ndjson", "?format=csv"])
async def test_gzip_is_sent_if_the_client_accepts_it(api: httpx.AsyncClient, store: Store, path: str) -> None:
    url = await mixed(store) + path
    plain = await api.get(url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["Vary"]
    async with api.stream("GET", url, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/json, text/csv;q=0.9", "application/json"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/csv;q=0, */*", "application/json"),
        ("text/csv;q=nonsense, application/json;q=0.1", "application/json"),
        ("application/*;q=0.2, text/*;q=0.3", "text/csv"),
        ("TEXT/CSV; header=present; Q=0.5, application/json;q=0.4", "text/csv"),
        ("application/x-ndjson, */*", "application/x-ndjson"),
        ("image/png", "application/json"),
    ],
)
async def test_the_format_is_the_one_of_the_highest_weight(
    api: httpx.AsyncClient, store: Store, accept: str, media_type: str
) -> None:
    answer = await api.get(await mixed(store), headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == media_type


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip;q=0", None),
        ("*, gzip;q=0", None),
        ("gzip;q=.", None),
        ("gzip;q=1.1.1", None),
        ("gzip;q=", None),
        ("*;q=0.1", "gzip"),
        ("*;q=0, GZIP;q=1.000", "gzip"),
    ],
)
async def test_weights_of_encodings_are_respected(
    api: httpx.AsyncClient, store: Store, accepted: str, encoding: str | None
) -> None:
    answer = await api.get(await mixed(store), headers={"Accept-Encoding": accepted})
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (200, encoding)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_followed_results_arrive_in_order_as_they_are_finished(
    api: httpx.AsyncClient, store: Store, encoding: str
) -> None:
    part = await store.open()
    for at in range(4):
        await store.open_jobs.add(part, make_chunk([b"image"] * 2, 2 * at), bytes(16))
    first, second = store.claim(0, items=4), store.claim(1, items=4)
    received = list[dict[str, Any]]()

    async def follow() -> None:
        unpack = zlib.decompressobj(31)
        rest = b""
        url = f"/v1/jobs/{to_text(part.job_id)}/results?follow=true"
        async with api.stream("GET", url, headers=NDJSON | {"Accept-Encoding": encoding}) as answer:
            async for data in answer.aiter_raw():
                *whole, rest = (rest + (unpack.decompress(data) if encoding == "gzip" else data)).split(b"\n")
                received.extend(map(json.loads, whole))

    task = asyncio.create_task(follow())
    store.finish(second)
    await asyncio.sleep(0)
    store.finish(first)
    await eventually(lambda: len(received) == 8, what="the results of the open job")
    await store.open_jobs.add(part, make_chunk([b"image"], 8), bytes(16))
    store.finish(store.claim())
    await eventually(lambda: len(received) == 9, what="the result of the later part")
    assert not task.done()
    await store.open_jobs.seal(part.job_id, OWNER)
    await task
    assert [item["index"] for item in received] == list(range(9))


async def followed_while(
    api: httpx.AsyncClient, store: Store, happens: Callable[[bytes, str], Awaitable[object]]
) -> httpx.Response:
    """The answer to a request that follows a job to which this happens before its first line."""
    job_id = await store.submit(*[b"image"] * 4)
    following = asyncio.create_task(api.get(f"/v1/jobs/{to_text(job_id)}/results?follow=true", headers=NDJSON))
    await asyncio.sleep(0)
    await happens(job_id, OWNER)
    return await following


async def test_a_followed_job_that_is_canceled_ends_with_its_canceled_items(
    api: httpx.AsyncClient, store: Store
) -> None:
    answer = await followed_while(api, store, store.jobs.cancel)
    assert (answer.status_code, [item["status"] for item in lines(answer)]) == (200, ["canceled"] * 4)


async def test_a_followed_job_that_is_deleted_before_its_first_line_is_gone(
    api: httpx.AsyncClient, store: Store
) -> None:
    """After the first line, the connection breaks: see `test_cut_off.py`."""
    answer = await followed_while(api, store, store.jobs.delete)
    assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")


async def test_pages_cannot_be_followed(api: httpx.AsyncClient, store: Store) -> None:
    answer = await api.get(await mixed(store) + "?follow=true")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
