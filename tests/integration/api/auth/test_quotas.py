"""Limits of managed keys over HTTP: requests a second, images a day, pending images; and the fields that show them."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from api.auth import rate_limit
from jobs.codec import pack_outcomes, pack_retained
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.store import keys
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_workers.leases import FinishedChunk
from tests.integration.api.auth.conftest import MakeKey
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar
from tests.support.store import Store
from tests.support.uploads import PNG, TAR


def limits(answer: httpx.Response) -> dict[str, tuple[int, int]]:
    """`r` and `t` of each policy in `RateLimit`."""
    items = answer.headers["RateLimit"].split(", ")
    found = [re.fullmatch(r'"([a-z]+)";r=(\d+);t=(\d+)', item) for item in items]
    assert all(found), items
    return {it[1]: (int(it[2]), int(it[3])) for it in found if it}


def images_left(answer: httpx.Response) -> int:
    left, seconds = limits(answer)["items"]
    assert 0 < seconds <= 86_400
    return left


def counted(store: Store) -> int:
    """How many images are counted today, of all keys."""
    return sum(int(store.redis.get(name)) for name in store.redis.keys(keys.ITEMS_OF_DAY + "*"))


@pytest.fixture
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket gets another token."""
    monkeypatch.setattr(rate_limit, "monotonic", lambda: 1000.0)


@pytest.mark.usefixtures("_stopped_clock")
async def test_requests_over_the_rate_are_refused_until_the_second_is_over(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    key, other = make_key(requests_per_second=3), make_key()
    api = await start_api()
    submitted = await api.post("/v1/jobs", content=shirt, headers=PNG | key)
    assert submitted.headers["RateLimit-Policy"] == '"requests";q=3;w=1'
    assert limits(submitted) == {"requests": (2, 1)}
    polled = await api.get(submitted.headers["Location"], headers=key)
    assert limits(polled) == {"requests": (1, 1)}
    assert limits(await api.get("/v1/jobs/not-an-id", headers=key)) == {"requests": (0, 1)}, "on every answer"

    for method, path in (("GET", "/v1/jobs"), ("HEAD", "/v1/models"), ("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/x")):
        answer = await api.request(method, path, headers=key)
        assert answer.status_code == 429, path
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=1'
        assert limits(answer) == {"requests": (0, 1)}
    assert (await api.get("/v1/jobs", headers=key)).json() | {"detail": ""} == {
        "type": "about:blank",
        "title": "Too many requests with this API key",
        "status": 429,
        "code": "rate_limited",
        "detail": "",
    }
    assert store.stat("accepted") == 1
    assert (await api.get("/v1/jobs", headers=other)).status_code == 200, "each key has a rate of its own"
    assert (await api.get("/livez", headers=key)).status_code == 200


async def test_a_form_over_the_daily_quota_is_refused_whole(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    key = make_key(items_per_day=5)
    api = await start_api()
    assert images_left(await api.get("/v1/models", headers=key)) == 5
    accepted = await api.post("/v1/jobs", files=[("files", ("a.png", shirt))] * 3, headers=key)
    assert accepted.status_code == 202
    assert accepted.headers["RateLimit-Policy"] == '"items";q=5;w=86400'
    assert images_left(accepted) == 2

    refused = await api.post("/v1/jobs", files=[("files", ("a.png", shirt))] * 3, headers=key)

    assert (refused.status_code, refused.json()["code"]) == (429, "daily_quota_exceeded")
    assert refused.json()["detail"].startswith("This key may submit 5 images a day (UTC), and 2 are left. Submit")
    assert images_left(refused) == 2
    assert int(refused.headers["Retry-After"]) == limits(refused)["items"][1]
    assert counted(store) == 3
    assert store.stat("accepted") == 1
    assert images_left(await api.post("/v1/jobs", content=shirt, headers=PNG | key)) == 1


async def ways_in(api: httpx.AsyncClient, key: dict[str, str], shirt: bytes) -> list[httpx.Response]:
    """One image by each way."""
    opened = await api.post("/v1/jobs?open=true", headers=key)
    assert opened.status_code == 202, "an open job has no images yet"
    return [
        await api.post("/v1/jobs", content=shirt, headers=PNG | key),
        await api.post("/v1/jobs", content=shirt, headers=PNG | key | {"Idempotency-Key": "one"}),
        await api.post("/v1/jobs", content=make_tar({"a.png": shirt}), headers=TAR | key),
        await api.post("/v1/jobs", content=make_tar({"a.png": shirt}), headers=TAR | key | {"Idempotency-Key": "two"}),
        await api.post("/v1/jobs", json={"urls": ["https://example.com/a.png"]}, headers=key),
        await api.post(f"{opened.headers['Location']}/items", content=shirt, headers=PNG | key),
        await api.post("/predict", files={"file": ("a.png", shirt)}, headers=key),
    ]


async def test_every_way_in_counts(start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store) -> None:
    key = make_key(items_per_day=100)
    api = await start_api(predict_wait_seconds=0.05)
    answers = await ways_in(api, key, shirt)
    assert [answer.status_code for answer in answers] == [202] * 6 + [504], "no worker runs"
    assert counted(store) == 7
    assert [images_left(answer) for answer in answers] == [99, 98, 97, 96, 95, 94, 93]


async def test_every_way_in_is_refused_once_the_quota_is_used_up(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    key = make_key(items_per_day=1)
    api = await start_api()
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG | key)).status_code == 202
    for answer in await ways_in(api, key, shirt):
        assert (answer.status_code, answer.json()["code"]) == (429, "daily_quota_exceeded"), answer.request.url
        assert images_left(answer) == 0
        assert "Retry-After" in answer.headers
    assert counted(store) == 1
    assert len(store.redis.keys(f"{keys.UPLOAD}*")) == 1, "nothing of a refused upload is left"


async def test_a_retry_counts(start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store) -> None:
    """And its repeat does not."""
    key = make_key(items_per_day=2)
    api = await start_api()
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG | key)).headers["Location"]
    lease = store.claim()
    crashed = pack_outcomes("fmnist-mlp@1", [Failure(ItemCode.WORKER_CRASHED)])
    store.leases.finish(
        lease.token, [FinishedChunk(lease.chunks[0].chunk_ref, 0, crashed, pack_retained([(0, shirt)]))]
    )
    again = [await api.post(f"{path}/retry", headers=key | {"Idempotency-Key": "again"}) for _ in range(2)]
    assert [answer.status_code for answer in again] == [202, 202]
    assert again[1].headers["Idempotency-Replayed"] == "true"
    assert [images_left(answer) for answer in again] == [0, 0]
    assert counted(store) == 2
    refused = await api.post(f"{path}/retry", headers=key)
    assert refused.json()["code"] == "daily_quota_exceeded"


async def test_the_repeat_of_a_submit_counts_once_by_each_way(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    key = make_key(items_per_day=10)
    api = await start_api()
    bodies: list[dict[str, Any]] = [
        {"content": shirt, "headers": PNG},
        {"content": make_tar({"a.png": shirt, "b.png": shirt}), "headers": TAR},
    ]
    for number, body in enumerate(bodies):
        headers = body["headers"] | key | {"Idempotency-Key": f"key {number}"}
        answers = [await api.post("/v1/jobs", content=body["content"], headers=headers) for _ in range(3)]
        assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    assert counted(store) == 3


async def test_a_stream_that_passes_the_quota_is_canceled_and_named(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    """Its first chunk of 64 images was accepted before the 65th arrived."""
    key = make_key(items_per_day=70)
    api = await start_api()
    archive = make_tar({f"{number}.png": shirt for number in range(130)})
    refused = await api.post("/v1/jobs", content=archive, headers=TAR | key)
    assert (refused.status_code, refused.json()["code"]) == (429, "daily_quota_exceeded")
    job = (await api.get(f"/v1/jobs/{refused.json()['job_id']}", headers=key)).json()
    assert (job["status"], job["counts"]["total"]) == ("canceled", 64)
    assert counted(store) == 64
    assert images_left(refused) == 6


async def test_processes_share_the_daily_quota(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    """And a process that did not accept an image learns of it at the refusal."""
    key = make_key(items_per_day=3)
    first, second = await start_api(), await start_api()
    for api in (first, second, first):
        assert (await api.post("/v1/jobs", content=shirt, headers=PNG | key)).status_code == 202
    refused = await second.post("/v1/jobs", content=shirt, headers=PNG | key)
    assert (refused.status_code, images_left(refused)) == (429, 0)
    third = await start_api()
    assert images_left(await third.get("/v1/models", headers=key)) == 0, "read before its first request"
    assert counted(store) == 3


async def test_the_keys_limit_of_pending_images_takes_the_place_of_the_owners(
    start_api: StartApi, make_key: MakeKey, shirt: bytes
) -> None:
    narrow, wide = make_key(pending_items=1), make_key(pending_items=100)
    api = await start_api(owner_pending_items_max=3)

    async def submit(key: dict[str, str]) -> httpx.Response:
        return await api.post("/v1/jobs", content=shirt, headers=PNG | key)

    assert (await submit(narrow)).status_code == 202
    refused = await submit(narrow)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "Retry-After" in refused.headers
    assert "RateLimit-Policy" not in refused.headers, "pending images are none of a window of time"
    assert [(await submit(wide)).status_code for _ in range(3)] == [202, 202, 429], "the owner's own limit holds, too"


async def test_new_limits_apply_to_a_running_api(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry, shirt: bytes
) -> None:
    key = make_key()
    api = await start_api()
    assert "RateLimit" not in (await api.get("/v1/models", headers=key)).headers
    registry.limit("alice", {"items_per_day": 1})
    async with asyncio.timeout(30):
        while "RateLimit" not in (await api.get("/v1/models", headers=key)).headers:
            pass
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG | key)).status_code == 202
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG | key)).status_code == 429
