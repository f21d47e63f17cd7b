"""Uploads of many images as one submit: archives, broken streams, the limit of streams."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from api.settings import ApiSettings
from jobs.store import keys
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar, make_zip
from tests.support.store import MODEL, Store
from tests.support.uploads import TAR, finish_all, names_of, numbered_images
from tests.support.waiting import eventually


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
    files = numbered_images(shirt, 150)
    body = pack(files | {"photos/.DS_Store": b"x"})  # type: ignore[operator]  # any of the packers
    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": content_type} if content_type else {})
    job = answer.json()
    assert (answer.status_code, job["lane"], job["counts"]["total"], job["skipped"]) == (202, "bulk", 150, 1)
    assert answer.headers["Location"] == job["links"]["self"]
    assert finish_all(store) == 150
    assert await names_of(api, job) == list(files)
    assert (await api.get(job["links"]["self"])).json()["status"] == "completed"


async def test_a_small_archive_is_accepted_whole_and_interactive(api: httpx.AsyncClient, shirt: bytes) -> None:
    job = (await api.post("/v1/jobs", content=make_tar(numbered_images(shirt, 3)), headers=TAR)).json()
    assert (job["lane"], job["status"], job["counts"]["total"]) == ("interactive", "queued", 3)


async def test_images_are_classified_while_their_archive_still_arrives(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data = make_tar(numbered_images(shirt, 200))
    classified = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        await classified.wait()
        yield data[len(data) // 2 :]

    upload = asyncio.create_task(api.post("/v1/jobs", content=body(), headers=TAR))
    await eventually(lambda: finish_all(store), what="the first chunk")
    classified.set()
    job = (await upload).json()
    assert job["counts"]["total"] == 200
    assert job["counts"]["succeeded"] > 0


async def test_the_job_of_a_broken_stream_is_canceled_and_its_id_is_in_the_error(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    data = make_tar(numbered_images(shirt, 200))
    answer = await api.post("/v1/jobs", content=data[: len(data) // 2], headers=TAR)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    job = (await api.get(f"/v1/jobs/{answer.json()['job_id']}")).json()
    assert job["status"] == "canceled"
    await store.jobs.sweep([MODEL])
    assert (store.stat("uploads"), store.stat("pending:public")) == (0, 0)


async def test_members_that_are_not_images_fail_as_items(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
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


async def test_more_streams_than_the_limit_are_refused(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(upload_streams_max=1)
    data = make_tar(numbered_images(shirt, 3))
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


SLOW_IMAGES = 150
SLOW_BODIES = ("zip", "tar", "form")


def slow_body(kind: str, files: dict[str, bytes]) -> tuple[bytes, str]:
    """An upload and its content type."""
    if kind == "form":
        request = httpx.Request("POST", "http://localhost", files=[("files", it) for it in files.items()])
        return request.read(), request.headers["Content-Type"]
    return (make_zip(files), "application/zip") if kind == "zip" else (make_tar(files), TAR["Content-Type"])


async def test_an_upload_may_come_as_slowly_as_it_likes(
    start_api: StartApi, store: Store, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is sent to more than its first chunk, and goes on once all jobs are older than their deadlines were.

    With a key, the job of a zip is open while that is spooled, without a chunk; without one, there is no job yet.
    """
    hold_seconds = 3.0  # longer than a busy machine stands still
    monkeypatch.setattr(ApiSettings, "hold_seconds", hold_seconds)
    api, files, go_on = await start_api(), numbered_images(shirt, SLOW_IMAGES), asyncio.Event()

    async def send(kind: str, path: str, headers: dict[str, str]) -> httpx.Response:
        data, content_type = slow_body(kind, files)

        async def body() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            await go_on.wait()
            yield data[len(data) // 2 :]

        return await api.post(path, content=body(), headers=headers | {"Content-Type": content_type})

    open_job = (await api.post("/v1/jobs?open=true")).headers["Location"]
    uploads = [asyncio.create_task(send("tar", f"{open_job}/items", {}))]
    for kind in SLOW_BODIES:
        uploads += [
            asyncio.create_task(send(kind, "/v1/jobs", headers)) for headers in ({}, {"Idempotency-Key": f"the {kind}"})
        ]

    def deadlines() -> dict[bytes, float]:
        return dict(store.redis.zrange(keys.OPEN_DEADLINES, 0, -1, withscores=True))

    jobs = len(uploads) - 1
    first = await eventually(lambda: found if len(found := deadlines()) == jobs else None, what="the jobs")
    await eventually(
        lambda: all(deadlines().get(job, 0) > end + 1500 * hold_seconds for job, end in first.items()),
        what="renewals of each",
    )
    go_on.set()
    for answer in await asyncio.gather(*uploads):
        assert (answer.status_code, answer.json()["counts"]["total"]) == (202, SLOW_IMAGES), answer.text
