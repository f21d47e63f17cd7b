"""Open jobs: parts in parallel, parts that broke off, sealing, the deadline."""

import asyncio

import httpx

from jobs.records import JobState
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar
from tests.support.store import Store
from tests.support.uploads import PNG, TAR, finish_all, names_of, numbered_images


async def open_job(api: httpx.AsyncClient, query: str = "") -> str:
    answer = await api.post(f"/v1/jobs?open=true{query}")
    assert (answer.status_code, answer.json()["status"]) == (202, "open")
    return str(answer.headers["Location"])


async def test_parts_are_added_in_parallel_and_the_job_ends_once_it_is_sealed(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    path = await open_job(api)
    bodies = [make_tar({f"{part}/{n:03}.png": shirt for n in range(100)}) for part in range(5)]
    answers = await asyncio.gather(*(api.post(f"{path}/items", content=body, headers=TAR) for body in bodies))
    answers.append(await api.post(f"{path}/items", content=shirt, headers=PNG))
    assert {answer.status_code for answer in answers} == {202}
    assert finish_all(store) == 501
    assert (await api.get(path)).json()["status"] == "open"

    sealed = await api.post(f"{path}/seal")
    assert (sealed.status_code, sealed.json()["status"], sealed.json()["counts"]["succeeded"]) == (
        200,
        "completed",
        501,
    )
    assert (await api.post(f"{path}/seal")).status_code == 200
    names = await names_of(api, sealed.json())
    assert len(names) == 501
    for part in range(5):
        assert [name for name in names if (name or "").startswith(f"{part}/")] == [
            f"{part}/{n:03}.png" for n in range(100)
        ]
    late = await api.post(f"{path}/items", content=shirt, headers=PNG)
    assert (late.status_code, late.json()["code"]) == (409, "job_sealed")


async def test_a_part_that_broke_off_is_sent_again_and_nothing_is_added_twice(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    path = await open_job(api)
    data, headers = make_tar(numbered_images(shirt, 200)), TAR | {"Idempotency-Key": "part 1"}
    broken = await api.post(f"{path}/items", content=data[:-60_000], headers=headers)
    assert broken.status_code == 422
    added = (await api.get(path)).json()["counts"]["total"]
    assert added == 128

    other = await api.post(f"{path}/items", content=make_tar(numbered_images(shirt + b"!", 200)), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    for replayed in (None, "true"):
        answer = await api.post(f"{path}/items", content=data, headers=headers)
        assert (answer.status_code, answer.json()["counts"]["total"]) == (202, 200)
        assert answer.headers.get("Idempotency-Replayed") == replayed
    assert finish_all(store) == 200
    sealed = (await api.post(f"{path}/seal")).json()
    assert await names_of(api, sealed) == list(numbered_images(shirt, 200))


async def test_an_open_job_without_images_cannot_be_sealed(api: httpx.AsyncClient) -> None:
    path = await open_job(api)
    answer = await api.post(f"{path}/seal")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_empty")
    assert (await api.post(f"{path}/cancel")).json()["status"] == "canceled"
    answer = await api.post(f"{path}/seal")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")


async def test_an_open_job_is_canceled_at_its_deadline(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(open_job_seconds_max=0.2)
    path = await open_job(api)
    await api.post(f"{path}/items", content=shirt, headers=PNG)
    finish_all(store)
    answer = await api.get(f"{path}?wait=20")
    assert answer.json()["status"] == JobState.CANCELED


async def test_opening_with_the_same_key_opens_one_job(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "open"}
    first = await api.post("/v1/jobs?open=true", headers=headers)
    again = await api.post("/v1/jobs?open=true", headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api.post("/v1/jobs?open=true&top_k=1", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
