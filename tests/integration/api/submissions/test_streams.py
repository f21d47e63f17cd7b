"""Uploads of many images over HTTP: archives, open jobs, idempotency keys."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from jobs.codec import pack_outcomes, pack_retained, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState
from jobs.store import keys
from jobs.store.job_hash import chunk_field
from jobs.store.leases import FinishedChunk
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar, make_zip
from tests.support.store import COAT, MODEL, Store
from tests.support.waiting import eventually

TAR = {"Content-Type": "application/x-tar"}
PNG = {"Content-Type": "image/png"}


def pictures(shirt: bytes, count: int) -> dict[str, bytes]:
    return {f"photos/{n:03}.png": shirt + bytes([n % 256]) for n in range(count)}


def drain(store: Store) -> int:
    """Classify all that waits, as a worker would."""
    done = 0
    while (lease := store.claim(done)).chunks:
        done += store.finish(lease)
    return done


async def names_of(api: httpx.AsyncClient, job: dict[str, object]) -> list[str]:
    answer = await api.get(f"/v1/jobs/{job['id']}/results", headers={"Accept": "application/x-ndjson"})
    return [json.loads(line)["name"] for line in answer.text.splitlines()]


@pytest.mark.parametrize(
    ("content_type", "pack"),
    [
        ("application/x-tar", make_tar),
        ("application/octet-stream", make_tar),
        ("application/gzip", lambda files: make_tar(files, mode="w:gz")),
        ("application/zip", make_zip),
        ("", make_zip),
    ],
)
async def test_an_archive_is_a_job_whose_items_have_its_names_and_order(
    api: httpx.AsyncClient, store: Store, shirt: bytes, content_type: str, pack: object
) -> None:
    files = pictures(shirt, 150)
    body = pack(files | {"photos/.DS_Store": b"x"})  # type: ignore[operator]  # any of the packers
    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": content_type} if content_type else {})
    job = answer.json()
    assert (answer.status_code, job["lane"], job["counts"]["total"], job["skipped"]) == (202, "bulk", 150, 1)
    assert answer.headers["Location"] == job["links"]["self"]
    assert drain(store) == 150
    assert await names_of(api, job) == list(files)
    assert (await api.get(job["links"]["self"])).json()["status"] == "completed"


async def test_a_small_archive_is_accepted_whole_and_interactive(api: httpx.AsyncClient, shirt: bytes) -> None:
    job = (await api.post("/v1/jobs", content=make_tar(pictures(shirt, 3)), headers=TAR)).json()
    assert (job["lane"], job["status"], job["counts"]["total"]) == ("interactive", "queued", 3)


async def test_images_are_classified_while_their_archive_still_comes(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data = make_tar(pictures(shirt, 200))
    classified = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        await classified.wait()
        yield data[len(data) // 2 :]

    upload = asyncio.create_task(api.post("/v1/jobs", content=body(), headers=TAR))
    await eventually(lambda: drain(store), what="the first chunk")
    classified.set()
    job = (await upload).json()
    assert job["counts"]["total"] == 200
    assert job["counts"]["succeeded"] > 0


async def test_a_broken_stream_is_canceled_and_says_so(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    data = make_tar(pictures(shirt, 200))
    answer = await api.post("/v1/jobs", content=data[: len(data) // 2], headers=TAR)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    job = (await api.get(f"/v1/jobs/{answer.json()['job_id']}")).json()
    assert job["status"] == "canceled"
    await store.jobs.sweep([MODEL])
    assert (store.stat("uploads"), store.stat("pending:public")) == (0, 0)


async def test_entries_that_are_no_images_fail_as_items(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    files = {"a.png": shirt, "../b.png": shirt, "c.zip": b"PK\x03\x04"}
    job = (await api.post("/v1/jobs", content=make_tar(files), headers=TAR)).json()
    (claimed,) = store.claim().chunks
    assert claimed.chunk_ref.items == 3
    assert job["counts"]["total"] == 3


@pytest.mark.parametrize("body", [b"", bytes(1024), b"no tar" * 200, make_tar({"a/.DS_Store": b"x"})])
async def test_an_archive_without_images_is_refused_and_leaves_nothing(api: httpx.AsyncClient, body: bytes) -> None:
    for headers in (TAR, TAR | {"Idempotency-Key": "key"}):
        answer = await api.post("/v1/jobs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


async def test_too_many_streams_at_once_are_told_to_come_later(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(upload_streams_max=1)
    data = make_tar(pictures(shirt, 3))
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[:1024]
        await go_on.wait()
        yield data[1024:]

    upload = asyncio.create_task(api.post("/v1/jobs", content=body(), headers=TAR | {"Idempotency-Key": "first"}))
    await eventually(lambda: store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*"), what="the first stream's job")
    answer = await api.post("/v1/jobs", content=data, headers=TAR)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    go_on.set()
    assert (await upload).status_code == 202


# -- Idempotency-Key


@pytest.mark.parametrize("kind", ["image", "tar", "multipart"])
async def test_a_repeat_with_the_same_key_gives_the_first_answer(
    api: httpx.AsyncClient, store: Store, shirt: bytes, kind: str
) -> None:
    async def post(count: int, query: str = "") -> httpx.Response:
        key = {"Idempotency-Key": "my key"}
        if kind == "image":
            return await api.post(f"/v1/jobs{query}", content=shirt + bytes(count), headers=PNG | key)
        files = pictures(shirt, count)
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
    assert drain(store) == (1 if kind == "image" else 150)


async def test_while_the_first_is_running_a_repeat_is_told_so(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data = make_tar(pictures(shirt, 3))
    headers = TAR | {"Idempotency-Key": "key"}
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[:1024]
        await go_on.wait()
        yield data[1024:]

    upload = asyncio.create_task(api.post("/v1/jobs", content=body(), headers=headers))
    await eventually(lambda: store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*"), what="the key, at the first byte")
    answer = await api.post("/v1/jobs", content=data, headers=headers)
    (job,) = (await api.get("/v1/jobs?idempotency_key=key")).json()["jobs"]
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
    assert answer.json()["job_id"] == job["id"]
    assert job["status"] == "open"
    go_on.set()
    assert (await upload).status_code == 202
    assert (await api.post("/v1/jobs", content=data, headers=headers)).headers["Idempotency-Replayed"] == "true"


async def test_a_stream_that_broke_may_be_sent_again_with_its_key(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data, headers = make_tar(pictures(shirt, 200)), TAR | {"Idempotency-Key": "key"}
    assert (await api.post("/v1/jobs", content=data[:100_000], headers=headers)).status_code == 422
    answer = await api.post("/v1/jobs", content=data, headers=headers)
    assert (answer.status_code, answer.json()["counts"]["total"]) == (202, 200)
    assert "Idempotency-Replayed" not in answer.headers


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00fc"])
async def test_a_key_that_is_none_is_refused(api: httpx.AsyncClient, shirt: bytes, key: str) -> None:
    headers = [*PNG.items(), ("Idempotency-Key", key.encode())]
    answer = await api.post("/v1/jobs", content=shirt, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


# -- open jobs


async def opened(api: httpx.AsyncClient, query: str = "") -> str:
    answer = await api.post(f"/v1/jobs?open=true{query}")
    assert (answer.status_code, answer.json()["status"]) == (202, "open")
    return str(answer.headers["Location"])


async def test_parts_come_in_parallel_and_the_job_ends_once_it_is_sealed(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    path = await opened(api)
    bodies = [make_tar({f"{part}/{n:03}.png": shirt for n in range(100)}) for part in range(5)]
    answers = await asyncio.gather(*(api.post(f"{path}/items", content=body, headers=TAR) for body in bodies))
    answers.append(await api.post(f"{path}/items", content=shirt, headers=PNG))
    assert {answer.status_code for answer in answers} == {202}
    assert drain(store) == 501
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


async def test_a_part_that_broke_off_is_sent_again_and_nothing_is_taken_twice(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    path = await opened(api)
    data, headers = make_tar(pictures(shirt, 200)), TAR | {"Idempotency-Key": "part 1"}
    broken = await api.post(f"{path}/items", content=data[:-60_000], headers=headers)
    assert broken.status_code == 422
    kept = (await api.get(path)).json()["counts"]["total"]
    assert kept == 128

    other = await api.post(f"{path}/items", content=make_tar(pictures(shirt + b"!", 200)), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    for replayed in (None, "true"):
        answer = await api.post(f"{path}/items", content=data, headers=headers)
        assert (answer.status_code, answer.json()["counts"]["total"]) == (202, 200)
        assert answer.headers.get("Idempotency-Replayed") == replayed
    assert drain(store) == 200
    sealed = (await api.post(f"{path}/seal")).json()
    assert await names_of(api, sealed) == list(pictures(shirt, 200))


async def test_an_open_job_without_images_cannot_be_sealed(api: httpx.AsyncClient) -> None:
    path = await opened(api)
    answer = await api.post(f"{path}/seal")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_empty")
    assert (await api.post(f"{path}/cancel")).json()["status"] == "canceled"
    answer = await api.post(f"{path}/seal")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")


async def test_the_deadline_of_an_open_job_seals_or_cancels_it_as_its_setting_says(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    for setting, ends_as in (("cancel", JobState.CANCELED), ("seal", JobState.COMPLETED)):
        api = await start_api(open_job_at_deadline=setting, open_job_seconds_max=0.2, sweep_seconds=0.05)
        path = await opened(api)
        await api.post(f"{path}/items", content=shirt, headers=PNG)
        drain(store)
        answer = await api.get(f"{path}?wait=5")
        assert answer.json()["status"] == ends_as


async def test_opening_with_the_same_key_opens_one_job(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "open"}
    first = await api.post("/v1/jobs?open=true", headers=headers)
    again = await api.post("/v1/jobs?open=true", headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api.post("/v1/jobs?open=true&top_k=1", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


# -- retry


def fail(store: Store, failures: dict[str, ItemCode]) -> None:
    """Finish what waits: images of these names fail, with their bytes kept, the others are coats."""
    lease = store.claim()
    names = json.loads(store.redis.hget(keys.JOB.encode() + lease.chunks[0].chunk_ref.job_id, chunk_field("names", 0)))
    done = []
    for claimed in lease.chunks:
        images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
        outcomes = [Failure(failures[name]) if name in failures else COAT for name in names]
        kept = pack_retained((place, images[place]) for place, name in enumerate(names) if name in failures)
        done.append(FinishedChunk(claimed.chunk_ref, 3 - len(failures), pack_outcomes("fmnist-mlp@1", outcomes), kept))
    store.leases.finish(lease.token, done)


async def test_a_retry_is_a_new_job_of_the_failed_images_whose_bytes_are_kept(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    files = {"a.png": shirt, "b.png": shirt + b"b", "c.png": shirt + b"c"}
    job = (await api.post("/v1/jobs?top_k=3", content=make_tar(files), headers=TAR)).json()
    path = job["links"]["self"]
    early = await api.post(f"{path}/retry")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_ended")
    fail(store, {"b.png": ItemCode.TIMEOUT})

    answer = await api.post(f"{path}/retry", headers={"Idempotency-Key": "again"})
    retried = answer.json()
    assert (answer.status_code, retried["retry_of"], retried["counts"]["total"]) == (202, job["id"], 1)
    again = await api.post(f"{path}/retry", headers={"Idempotency-Key": "again"})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (retried["id"], "true")
    (claimed,) = store.claim().chunks
    assert unpack_upload(claimed.upload, 1) == [files["b.png"]]
    assert claimed.top_k == 3


async def test_a_retry_of_nothing_is_refused(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG)).headers["Location"]
    drain(store)
    for headers in ({}, {"Idempotency-Key": "again"}):
        answer = await api.post(f"{path}/retry", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_retry")
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1
