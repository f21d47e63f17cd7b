"""Repeated submits with an Idempotency-Key."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from jobs.store import keys
from tests.support.archives import make_tar
from tests.support.store import Store
from tests.support.uploads import PNG, TAR, finish_all, numbered_images
from tests.support.waiting import eventually


@pytest.mark.parametrize("kind", ["image", "tar", "multipart"])
async def test_a_repeat_with_the_same_key_gives_the_first_answer(
    api: httpx.AsyncClient, store: Store, shirt: bytes, kind: str
) -> None:
    async def post(count: int, query: str = "") -> httpx.Response:
        key = {"Idempotency-Key": "my key"}
        if kind == "image":
            return await api.post(f"/v1/jobs{query}", content=shirt + bytes(count), headers=PNG | key)
        files = numbered_images(shirt, count)
        if kind == "tar":
            return await api.post(f"/v1/jobs{query}", content=make_tar(files), headers=TAR | key)
        return await api.post(f"/v1/jobs{query}", files=[("files", it) for it in files.items()], headers=key)

    first, again = await post(150), await post(150)
    assert (first.status_code, again.status_code) == (202, 202)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() | {"eta_seconds": None} == again.json() | {"eta_seconds": None}
    assert again.headers["Location"] == first.headers["Location"]

    for other in (await post(149), await post(150, "?top_k=1")):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1
    found = (await api.get("/v1/jobs", params={"idempotency_key": "my key"})).json()["jobs"]
    assert [job["id"] for job in found] == [first.json()["id"]]
    assert (await api.get("/v1/jobs", params={"idempotency_key": "another"})).json()["jobs"] == []
    assert finish_all(store) == (1 if kind == "image" else 150)


async def test_a_repeat_while_the_first_request_runs_is_a_conflict(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data = make_tar(numbered_images(shirt, 3))
    headers = TAR | {"Idempotency-Key": "key"}
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[:1024]
        await go_on.wait()
        yield data[1024:]

    upload = asyncio.create_task(api.post("/v1/jobs", content=body(), headers=headers))
    await eventually(lambda: store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*"), what="the key, claimed at the first byte")
    answer = await api.post("/v1/jobs", content=data, headers=headers)
    (job,) = (await api.get("/v1/jobs?idempotency_key=key")).json()["jobs"]
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["job_id"] == job["id"]
    assert job["status"] == "open"
    go_on.set()
    assert (await upload).status_code == 202
    assert (await api.post("/v1/jobs", content=data, headers=headers)).headers["Idempotency-Replayed"] == "true"


async def test_a_stream_that_broke_may_be_sent_again_with_its_key(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data, headers = make_tar(numbered_images(shirt, 200)), TAR | {"Idempotency-Key": "key"}
    assert (await api.post("/v1/jobs", content=data[:100_000], headers=headers)).status_code == 422
    answer = await api.post("/v1/jobs", content=data, headers=headers)
    assert (answer.status_code, answer.json()["counts"]["total"]) == (202, 200)
    assert "Idempotency-Replayed" not in answer.headers


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00fc"])
async def test_an_invalid_key_is_refused(api: httpx.AsyncClient, shirt: bytes, key: str) -> None:
    headers = [*PNG.items(), ("Idempotency-Key", key.encode())]
    answer = await api.post("/v1/jobs", content=shirt, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
