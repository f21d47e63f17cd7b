import asyncio
import json

import httpx
import pytest

from api.schemas import ItemPage, ItemResult, JobPage, JobResource
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.store import keys
from tests.integration.api.conftest import StartApi, running_api
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, Store
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}
NDJSON = {"Accept": "application/x-ndjson"}


async def submit(api: httpx.AsyncClient, shirt: bytes, files: int = 1) -> str:
    if files == 1:
        answer = await api.post("/v1/jobs", content=shirt, headers=PNG)
    else:
        answer = await api.post("/v1/jobs", files=[("files", (f"{n}.png", shirt)) for n in range(files)])
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def test_results_are_pages_with_pending_items(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    job_id = await submit(api, shirt, files=5)
    items, cursor = [], ""
    while cursor is not None:
        page = (await api.get(f"/v1/jobs/{job_id}/results?limit=2" + (f"&cursor={cursor}" if cursor else ""))).json()
        ItemPage.model_validate(page)
        assert len(page["items"]) <= 2
        items += page["items"]
        cursor = page["next_cursor"]
    assert items == [{"index": n, "name": f"{n}.png", "status": "pending"} for n in range(5)]

    store.finish(store.claim())
    page = (await api.get(f"/v1/jobs/{job_id}/results")).json()
    ItemPage.model_validate(page)
    assert [item["class"] for item in page["items"]] == ["Coat"] * 5


async def test_ndjson_has_a_line_for_each_item_that_has_ended(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    job_id = await store.submit(*[shirt] * 6, chunk_items=2)
    path = f"/v1/jobs/{(await api.get('/v1/jobs')).json()['jobs'][0]['id']}/results"
    assert (await api.get(path, headers=NDJSON)).text == ""

    first = store.claim(items=2)
    store.finish(first, Failure(ItemCode.NOT_AN_IMAGE))
    store.finish(store.claim("boot|task|1|1", items=2))
    answer = await api.get(path, headers=NDJSON)

    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    for line in lines:
        ItemResult.model_validate(line)
    assert [(line["index"], line["status"]) for line in lines] == [
        (0, "failed"),
        (1, "failed"),
        (2, "succeeded"),
        (3, "succeeded"),
    ]
    assert lines[0]["error"]["code"] == "not_an_image"
    assert job_id


async def test_jobs_are_listed_with_a_cursor_and_by_state(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    ids = [await submit(api, shirt) for _ in range(5)]
    store.finish(store.claim(items=2))

    first = (await api.get("/v1/jobs?limit=3")).json()
    JobPage.model_validate(first)
    second = (await api.get(f"/v1/jobs?limit=3&cursor={first['next_cursor']}")).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert second["next_cursor"] is None
    completed = (await api.get("/v1/jobs?status=completed")).json()["jobs"]
    assert [job["id"] for job in completed] == ids[1::-1]


async def test_a_long_poll_is_woken_by_the_end_of_its_job(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    job_id = await submit(api, shirt)
    polls = [asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=20")) for _ in range(3)]
    await eventually(lambda: api_listens(store), what="the subscription")
    store.finish(store.claim())
    answers = await asyncio.gather(*polls)
    assert [answer.json()["status"] for answer in answers] == ["completed"] * 3


def api_listens(store: Store) -> bool:
    """Whether the API is subscribed to completion notices."""
    return bool(store.redis.pubsub_numsub(f"{keys.ENDED_CHANNEL}.0")[0][1])


async def test_a_long_poll_shows_the_job_as_it_is_when_its_time_is_over(api: httpx.AsyncClient, shirt: bytes) -> None:
    job_id = await submit(api, shirt)
    assert (await api.get(f"/v1/jobs/{job_id}?wait=0.05")).json()["status"] == "queued"


async def test_a_long_poll_of_an_ended_job_answers_at_once(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    job_id = await submit(api, shirt)
    store.finish(store.claim())
    assert (await api.get(f"/v1/jobs/{job_id}?wait=30")).json()["status"] == "completed"


async def test_a_long_poll_is_answered_even_if_its_notice_was_lost(
    start_api: StartApi, store: Store, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends without a notice, as if the subscription was cut at that moment."""
    monkeypatch.setattr("api.results.completion.REREAD_SECONDS", 0.2)
    api = await start_api()
    job_id = await submit(api, shirt)
    poll = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=20"))
    await store.claimed()
    (job,) = store.redis.keys(keys.JOB + "*")
    store.redis.hset(job, mapping={"s": "c", "d": 1, "e": 1})
    assert (await poll).json()["status"] == "completed"


async def test_long_polls_survive_a_cut_subscription(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    job_id = await submit(api, shirt)
    poll = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=20"))
    await eventually(lambda: api_listens(store), what="the subscription")
    store.redis.client_kill_filter(_type="pubsub")
    store.finish(store.claim())
    assert (await poll).json()["status"] == "completed"


@pytest.mark.parametrize(("change", "status"), [("cancel", 200), ("delete", 410)])
async def test_a_long_poll_is_woken_by_a_cancel_and_a_delete(
    api: httpx.AsyncClient, store: Store, shirt: bytes, change: str, status: int
) -> None:
    job_id = await submit(api, shirt)
    poll = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=20"))
    await eventually(lambda: api_listens(store), what="the subscription")
    await (api.delete(f"/v1/jobs/{job_id}") if change == "delete" else api.post(f"/v1/jobs/{job_id}/cancel"))
    assert (await poll).status_code == status


async def test_a_long_poll_ends_when_its_client_disconnects(
    valkey: Valkey, shirt: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_api(valkey) as api:
        job_id = await submit(api, shirt)
        with pytest.raises(httpx.ReadTimeout):
            await api.get(f"/v1/jobs/{job_id}?wait=30", timeout=httpx.Timeout(25, read=0.2))
    assert "timeout graceful shutdown exceeded" not in caplog.text, "no request was left open"


async def test_a_cancel_ends_what_is_pending(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    job_id = await submit(api, shirt, files=3)
    job = (await api.post(f"/v1/jobs/{job_id}/cancel")).json()

    JobResource.model_validate(job)
    assert job["status"] == "canceled"
    assert job["counts"] == {"total": 3, "pending": 0, "succeeded": 0, "failed": 0, "canceled": 3}
    items = (await api.get(f"/v1/jobs/{job_id}/results")).json()["items"]
    assert [item["status"] for item in items] == ["canceled"] * 3
    assert store.claim().chunks == []
    assert (await api.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200, "a repeat changes nothing"


async def test_a_cancel_preserves_finished_items(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    await store.submit(*[shirt] * 4, chunk_items=2)
    store.finish(store.claim(items=2), COAT)
    (listed,) = (await api.get("/v1/jobs")).json()["jobs"]
    job = (await api.post(f"/v1/jobs/{listed['id']}/cancel")).json()
    assert job["counts"] == {"total": 4, "pending": 0, "succeeded": 2, "failed": 0, "canceled": 2}


async def test_a_deleted_job_is_gone(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    await api.get("/readyz")
    before = store.keys() - {keys.WRITE_PROBE.encode()}
    job_id = await submit(api, shirt)
    assert (await api.delete(f"/v1/jobs/{job_id}")).status_code == 204
    await store.jobs.sweep([MODEL])

    left = store.keys() - before - {keys.STATS.encode(), keys.WRITE_PROBE.encode()}
    left = {key for key in left if not key.startswith((keys.READY.encode(), keys.RING.encode()))}
    assert left <= {keys.ENDED.encode()}
    for call in (api.get, api.delete):
        answer = await call(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []
