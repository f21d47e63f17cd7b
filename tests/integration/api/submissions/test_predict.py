"""`POST /predict`."""

import asyncio

import httpx

from jobs.item_codes import ItemCode
from jobs.records import Failure, Prediction
from tests.integration.api.conftest import StartApi
from tests.support.store import Store

PNG = {"Content-Type": "image/png"}


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


async def test_predict_accepts_one_file_only(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    answer = await api.post("/predict", files=[("file", shirt), ("file", shirt)])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert store.claim().chunks == []


async def test_predict_requires_the_field_file(api: httpx.AsyncClient, shirt: bytes) -> None:
    answer = await api.post("/predict", files={"picture": shirt})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    answer = await api.post("/predict", content=shirt, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_form_around_one_image_has_its_bound(start_api: StartApi) -> None:
    api = await start_api(item_bytes_max=1 << 20)
    form = {"file": ("a.png", b"x"), "other": ("b", bytes(2 << 20))}
    answer = await api.post("/predict", files=form)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
