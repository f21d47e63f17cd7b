"""Uploads that find no space in the upload budget."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.submissions.single_chunk import SingleChunkSubmitter
from jobs.store import keys
from jobs.store.for_api.upload_budget import UploadBudget
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import Store
from tests.support.uploads import TAR
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}


async def test_a_full_queue_answers_503_with_retry_after(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(uploads_budget_fraction=0.01, item_bytes_max=2 << 20)
    image = shirt + bytes(1 << 20)
    for _ in range(2):
        assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202
    before = store.keys()
    answer = await api.post("/v1/jobs", content=image, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["Retry-After"] == "60", "the maximum, because nothing drains"
    assert store.keys() == before
    store.finish(store.claim())
    assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202


async def test_uploads_in_progress_count_against_the_upload_budget(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    """Of 8 MiB for uploads, the 5 MiB of an unfinished upload leave no space for 4 more."""
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
    await eventually(lambda: store.stat("uploads") < 1 << 20, what="the removal of the first chunk")
    assert (await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 202


async def test_images_for_predict_in_progress_count_against_the_upload_budget(start_api: StartApi) -> None:
    fraction = (8 << 20) / MAXMEMORY_BYTES + 1e-6
    api = await start_api(uploads_budget_fraction=fraction, item_bytes_max=5 << 20)
    arrived = asyncio.Event()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'

    async def unfinished() -> AsyncIterator[bytes]:
        yield head + bytes(5 << 20)
        arrived.set()
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    upload = asyncio.create_task(api.post("/predict", content=unfinished(), headers=headers))
    await arrived.wait()

    async def second() -> httpx.Response:
        return await api.post("/predict", content=head + bytes(4 << 20) + b"\r\n--b--", headers=headers)

    async def refused() -> bool:
        answer = await second()
        return (answer.status_code, answer.json()["code"]) == (503, "queue_full")

    async with asyncio.timeout(60):
        while not await refused():  # until the API has read the first upload's bytes
            pass
    upload.cancel()


async def test_a_stream_that_finds_no_space_for_too_long_is_canceled(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    fraction = (8 << 20) / MAXMEMORY_BYTES + 1e-6
    api = await start_api(uploads_budget_fraction=fraction, item_bytes_max=4 << 20, room_wait_seconds_max=0.3)
    image = shirt + bytes((3 << 20) - len(shirt))
    files = [("files", image), ("files", image)]
    assert (await api.post("/v1/jobs", files=files)).status_code == 202
    uploads = store.redis.keys(f"{keys.UPLOAD}*")
    answer = await api.post("/v1/jobs", files=files)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert store.redis.keys(f"{keys.UPLOAD}*") == uploads, "the chunk that waited for space is deleted"
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1, "the refused upload left no job"


@pytest.mark.parametrize(
    ("size", "headers"),
    [(1 << 10, PNG), (512 << 10, PNG), (1 << 10, TAR)],  # the second one is written by itself, before its job
)
async def test_bytes_count_as_open_until_redis_has_replied(
    start_api: StartApi,
    valkey: Valkey,
    shirt: bytes,
    budgets: list[UploadBudget],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    headers: dict[str, str],
) -> None:
    api = await start_api(submit_deadline_seconds=1)
    (budget,), image, seen = budgets, shirt + bytes(size), list[int]()
    content = make_tar({"a.png": image}) if headers is TAR else image
    submit = SingleChunkSubmitter.submit

    async def observed(*args: Any) -> Any:
        seen.append(budget.open_bytes)
        try:
            return await submit(*args)
        finally:
            seen.append(budget.open_bytes)

    monkeypatch.setattr(SingleChunkSubmitter, "submit", observed)
    with valkey.client as client:
        client.client_pause(600_000, all=False)
        try:
            answer = await api.post("/v1/jobs", content=content, headers=headers)
        finally:
            client.client_unpause()
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert len(seen) == 2
    assert min(seen) >= len(image)
    assert budget.open_bytes == 0
