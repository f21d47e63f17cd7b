import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api.schemas import JobResource
from jobs.codec import unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState, Prediction
from jobs.store import keys
from tests.integration.api.conftest import StartApi
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import OWNER, Store
from tests.support.waiting import eventually

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
async def test_an_image_of_no_declared_type_is_told_by_its_first_bytes(
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


async def test_the_parameters_are_kept(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
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
async def test_a_preference_that_makes_no_sense_is_passed_over(
    api: httpx.AsyncClient, shirt: bytes, prefer: str
) -> None:
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
        assert (await api.get("/readyz")).status_code == 503
        assert (await api.get("/v1/jobs")).status_code == 503
        assert (await api.get("/livez")).status_code == 200

        server.start()
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202


async def test_a_full_queue_answers_503_with_retry_after(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(uploads_budget_fraction=0.01, item_bytes_max=2 << 20, retry_after_seconds_max=9)
    image = shirt + bytes(1 << 20)
    for _ in range(2):
        assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202
    before = store.keys()
    answer = await api.post("/v1/jobs", content=image, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["Retry-After"] == "9", "nothing drains"
    assert store.keys() == before
    store.finish(store.claim())
    assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202


async def test_uploads_that_are_still_coming_in_take_room(start_api: StartApi, store: Store, shirt: bytes) -> None:
    """8 MiB for uploads: the 5 MiB that an unfinished one has brought leave no room for 4 more."""
    fraction = (8 << 20) / MAXMEMORY_BYTES + 1e-6
    api = await start_api(uploads_budget_fraction=fraction, item_bytes_max=5 << 20)
    image = shirt + bytes((4 << 20) - len(shirt))

    async def unfinished() -> AsyncIterator[bytes]:
        for data in (image + bytes(1 << 20), shirt):
            yield b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + data + b"\r\n"
        yield b"--b\r\n"
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    upload = asyncio.create_task(api.post("/v1/jobs", content=unfinished(), headers=headers))
    await eventually(lambda: store.stat("uploads") > 5 << 20, what="the first chunk")
    answer = await api.post("/v1/jobs", content=image, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202

    upload.cancel()
    await eventually(lambda: store.stat("uploads") < 1 << 20, what="the end of what had come")
    assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202


async def test_images_for_predict_that_are_still_coming_in_take_room(start_api: StartApi) -> None:
    fraction = (8 << 20) / MAXMEMORY_BYTES + 1e-6
    api = await start_api(uploads_budget_fraction=fraction, item_bytes_max=5 << 20)
    come = asyncio.Event()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'

    async def unfinished() -> AsyncIterator[bytes]:
        yield head + bytes(5 << 20)
        come.set()
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    upload = asyncio.create_task(api.post("/predict", content=unfinished(), headers=headers))
    await come.wait()

    async def second() -> httpx.Response:
        return await api.post("/predict", content=head + bytes(4 << 20) + b"\r\n--b--", headers=headers)

    async def refused() -> bool:
        answer = await second()
        return (answer.status_code, answer.json()["code"]) == (503, "queue_full")

    async with asyncio.timeout(10):
        while not await refused():  # until the first one's bytes have been read
            pass
    upload.cancel()


async def test_a_form_around_one_image_has_its_bound(start_api: StartApi) -> None:
    api = await start_api(item_bytes_max=1 << 20)
    form = {"file": ("a.png", b"x"), "other": ("b", bytes(2 << 20))}
    answer = await api.post("/predict", files=form)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


async def test_a_stream_that_finds_no_room_for_too_long_is_canceled(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    fraction = (8 << 20) / MAXMEMORY_BYTES + 1e-6
    api = await start_api(uploads_budget_fraction=fraction, item_bytes_max=4 << 20, room_wait_seconds_max=0.3)
    image = shirt + bytes((3 << 20) - len(shirt))
    files = [("files", image), ("files", image)]
    assert (await api.post("/v1/jobs", files=files)).status_code == 202
    answer = await api.post("/v1/jobs", files=files)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1, "nothing of it had come in"


async def test_a_job_that_was_accepted_is_answered_though_redis_went_away_during_the_wait(
    tmp_path: Path, start_api: StartApi, shirt: bytes
) -> None:
    with Valkey(tmp_path / "vk") as server:
        api = await start_api(redis_url=server.url, submit_deadline_seconds=0.3)
        waiting = asyncio.create_task(api.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": "wait=1"}))
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


async def test_a_failed_image_says_why(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    submitted = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    store.finish(store.claim(), Failure(ItemCode.CORRUPT_IMAGE))
    job = (await api.get(submitted["links"]["self"])).json()
    JobResource.model_validate(job)
    assert job["status"] == JobState.FAILED
    assert job["result"]["error"]["code"] == "corrupt_image"


async def test_predict_answers_in_the_books_shape(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    asking = asyncio.create_task(api.post("/predict", files={"file": ("shirt.png", shirt, "image/png")}))
    lease = await store.claimed()
    assert lease.chunks[0].top_k == 1
    store.finish(lease, [Prediction(4, 0.6488)])
    answer = await asking
    assert (answer.status_code, answer.json()) == (200, {"class": "Coat", "confidence": "0.6488"})


async def test_predict_answers_422_for_a_bad_image(api: httpx.AsyncClient, store: Store) -> None:
    asking = asyncio.create_task(api.post("/predict", files={"file": ("a.txt", b"text")}))
    lease = await store.claimed()
    store.finish(lease, Failure(ItemCode.NOT_AN_IMAGE))
    answer = await asking
    assert (answer.status_code, answer.json()["code"], answer.json()["item_code"]) == (422, "bad_image", "not_an_image")


async def test_predict_answers_504_when_the_wait_runs_out_and_cancels_its_job(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    api = await start_api(predict_wait_seconds=0.05)
    answer = await api.post("/predict", files={"file": shirt})
    assert (answer.status_code, answer.json()["code"]) == (504, "wait_timeout")
    (job,) = (await api.get("/v1/jobs")).json()["jobs"]
    assert job["status"] == "canceled"
    assert store.claim().chunks == []


async def test_predict_takes_one_file(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    answer = await api.post("/predict", files=[("file", shirt), ("file", shirt)])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert store.claim().chunks == []


async def test_predict_wants_the_field_file(api: httpx.AsyncClient, shirt: bytes) -> None:
    answer = await api.post("/predict", files={"picture": shirt})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    answer = await api.post("/predict", content=shirt, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
