"""`POST /v1/jobs` with one chunk of images, also with `Prefer: wait`."""

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest

from api.schemas import JobResource
from jobs.codec import result_bytes, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState, Prediction
from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.integration.api.conftest import StartApi
from tests.support.processes import Valkey
from tests.support.store import MODEL, OWNER, WORKER_ID, Store
from tests.support.waiting import eventually, wait_until

PNG = {"Content-Type": "image/png"}


async def test_a_raw_image_is_accepted_at_once(api: httpx.AsyncClient, shirt: bytes) -> None:
    answer = await api.post("/v1/jobs", content=shirt, headers=PNG)

    assert answer.status_code == 202
    job = answer.json()
    JobResource.model_validate(job)
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-Request-Id"]
    assert job["status"] == "queued"
    assert job["counts"] == {"total": 1, "pending": 1, "succeeded": 0, "failed": 0, "canceled": 0}
    assert job["result"] == {"index": 0, "name": None, "status": "pending"}


async def test_the_result_is_there_once_a_worker_has_finished(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    submitted = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    store.finish(store.claim())

    job = (await api.get(submitted["links"]["self"])).json()

    JobResource.model_validate(job)
    assert job["status"] == "completed"
    assert job["result"] == {
        "index": 0,
        "name": None,
        "status": "succeeded",
        "class": "Coat",
        "confidence": 0.75,
        "model": "fmnist-mlp@1",
        "top_k": [{"class": "Coat", "confidence": 0.75}, {"class": "Shirt", "confidence": 0.125}],
    }
    assert job["created_at"] <= job["completed_at"] < job["expires_at"]


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "application/x-www-form-urlencoded"])
async def test_an_image_of_no_declared_type_is_recognized_by_its_first_bytes(
    api: httpx.AsyncClient, shirt: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await api.post("/v1/jobs", content=shirt, headers=headers)).status_code == 202


async def test_files_of_a_multipart_body_are_the_items_of_one_job(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    files = [("files", (f"{n}.png", shirt + bytes([n]))) for n in range(64)]
    answer = await api.post("/v1/jobs", files=files, data={"comment": "not a file"})

    assert answer.status_code == 202
    assert answer.json()["counts"]["total"] == 64
    assert "result" not in answer.json()
    (claimed,) = store.claim().chunks
    assert claimed.upload is not None
    assert unpack_upload(claimed.upload, 64) == [shirt + bytes([n]) for n in range(64)]


async def test_large_files_are_chunks_of_at_most_four_megabytes(api: httpx.AsyncClient, store: Store) -> None:
    sizes = [3 << 20, 2 << 20, 5 << 20, 100, 200]
    files = [("files", (f"{size}.png", bytes([n]) * size)) for n, size in enumerate(sizes)]
    answer = await api.post("/v1/jobs", files=files)

    assert answer.status_code == 202
    chunks = store.claim().chunks
    assert [claimed.chunk_ref.items for claimed in chunks] == [1, 1, 1, 2]
    images = [image for c in chunks if c.upload for image in unpack_upload(c.upload, c.chunk_ref.items)]
    assert [len(image) for image in images if image is not None] == sizes


async def test_the_parameters_reach_the_job(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    answer = await api.post("/v1/jobs?model=fmnist-mlp&top_k=7&lane=bulk", content=shirt, headers=PNG)
    assert (answer.json()["model"], answer.json()["lane"]) == ("fmnist-mlp", "bulk")
    assert store.claim().chunks[0].top_k == 7


async def test_prefer_wait_answers_with_the_ended_job(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    submitting = asyncio.create_task(api.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": "wait=5"}))
    lease = await store.claimed()
    store.finish(lease)

    answer = await submitting
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=5")
    assert answer.json()["result"]["class"] == "Coat"


async def test_prefer_wait_answers_202_when_the_time_is_over(api: httpx.AsyncClient, shirt: bytes) -> None:
    answer = await api.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": "respond-async, wait=0"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0")
    assert answer.json()["status"] == "queued"


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait", "patience"])
async def test_an_invalid_preference_is_ignored(api: httpx.AsyncClient, shirt: bytes, prefer: str) -> None:
    answer = await api.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": prefer})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


async def test_many_clients_submit_at_once_and_each_gets_its_own_result(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    answers = await asyncio.gather(
        *(api.post("/v1/jobs", content=shirt + n.to_bytes(2), headers=PNG) for n in range(200))
    )
    assert {answer.status_code for answer in answers} == {202}
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 200
    number = 0
    while (lease := store.claim(number)).chunks:
        number += 1
        assert store.finish(lease) == len(lease.chunks)
    states = [(await api.get(f"/v1/jobs/{job_id}")).json()["status"] for job_id in ids]
    assert states == ["completed"] * 200
    assert store.stat("transitions") == 200


async def test_without_redis_submits_are_refused_and_work_again_when_it_is_back(
    start_api: StartApi, shirt: bytes, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "vk") as server:
        api = await start_api(redis_url=server.url)
        assert (await api.get("/readyz")).status_code == 200
        server.kill()

        for path in ("/v1/jobs", "/v1/jobs"):
            answer = await api.post(path, content=shirt, headers=PNG)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.headers["Retry-After"] == "2"
        await is_ready(api, 503)
        assert (await api.get("/v1/jobs")).status_code == 503
        assert (await api.get("/livez")).status_code == 200

        server.start()
        await is_ready(api, 200)
        assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202


async def is_ready(api: httpx.AsyncClient, status: int) -> None:
    """Wait for this answer: the last one holds for a second."""
    ends = time.monotonic() + 10
    while (answer := await api.get("/readyz")).status_code != status:
        assert time.monotonic() < ends, answer.text


async def test_a_job_that_was_accepted_is_answered_though_redis_went_away_during_the_wait(
    tmp_path: Path, start_api: StartApi, shirt: bytes
) -> None:
    with Valkey(tmp_path / "vk") as server:
        api = await start_api(redis_url=server.url, submit_deadline_seconds=1)
        waiting = asyncio.create_task(api.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": "wait=3"}))
        with server.client as client:
            await eventually(lambda: client.exists(keys.OWNER_JOBS + OWNER), what="the job")
        server.signal(signal.SIGSTOP)
        answer = await waiting
        server.signal(signal.SIGCONT)
        assert answer.status_code == 202
        assert (await api.get(answer.headers["Location"])).json()["status"] == "queued"


async def test_over_the_quota_answers_429(start_api: StartApi, shirt: bytes) -> None:
    api = await start_api(owner_pending_items_max=1)
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202
    answer = await api.post("/v1/jobs", content=shirt, headers=PNG)
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (429, "quota_exceeded", "2")


async def test_a_failed_image_shows_its_error(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    submitted = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    store.finish(store.claim(), Failure(ItemCode.CORRUPT_IMAGE))
    job = (await api.get(submitted["links"]["self"])).json()
    JobResource.model_validate(job)
    assert job["status"] == JobState.FAILED
    assert job["result"]["error"]["code"] == "corrupt_image"


@pytest.mark.parametrize("query", ["", "?open=true"])
async def test_a_submit_sets_memory_for_its_results_aside(
    api: httpx.AsyncClient, store: Store, shirt: bytes, query: str
) -> None:
    path = (await api.post(f"/v1/jobs{query or '?top_k=10'}", content=b"" if query else shirt)).headers["Location"]
    if query:
        await api.post(f"{path}/items", content=shirt, headers=PNG)
    (job,) = store.redis.keys(keys.JOB + "*")
    set_aside = int(store.redis.hget(job, keys.FIELDS["result_bytes"]) or 0)
    assert set_aside == result_bytes(5 if query else 10, classes=10)
    records = store.stat("records")
    store.finish(store.claim(), [Prediction(0, 1.0)])
    assert store.stat("records") < records


async def test_a_job_for_a_model_that_no_worker_serves_says_so(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    job = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    assert "No worker serves" in job["notice"]
    JobResource.model_validate(job)

    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")

    store.leases.heartbeat([(MODEL, Heartbeat(f"{MODEL}@1", WORKER_ID, 1))], seconds=60)
    with httpx.Client(base_url=api.base_url) as other:

        def is_served() -> bool:
            return "notice" not in other.get(job["links"]["self"]).json()

        await asyncio.to_thread(wait_until, is_served, what="an answer without a notice")


async def test_a_key_does_not_change_the_lane(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    for count, query, lane in ((3, "", "interactive"), (3, "?lane=bulk", "bulk"), (65, "", "bulk")):
        for headers in ({}, {"Idempotency-Key": f"{count}{query}"}):
            form = [("files", (f"{n}.png", shirt)) for n in range(count)]
            job = (await api.post(f"/v1/jobs{query}", files=form, headers=headers)).json()
            assert (job["lane"], job["counts"]["total"]) == (lane, count)
            lease = store.claim(turn=0)
            assert (lease.bulk, lease.chunks[0].chunk_ref.items) == (lane == "bulk", min(count, 64))
            store.finish(lease)
            while (lease := store.claim()).chunks:
                store.finish(lease)
