"""Uploads that wait in a folder outside Redis, over HTTP and with real workers."""

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from jobs.codec import pack_retained, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.settings import StoreSettings
from jobs.spool.folder import SUBFOLDER
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.stack import Stack, results_of, submit_all
from tests.support.store import Store, finished
from tests.support.uploads import PNG, TAR
from tests.support.waiting import eventually

BUDGET = 4 << 20


def large(shirt: bytes, number: int = 0) -> bytes:
    """The shirt in 512 KiB: what stands behind a picture's end is not read."""
    return shirt + bytes([number]) * (512 << 10)


def files(folder: Path) -> list[Path]:
    return sorted((folder / SUBFOLDER).glob("*.*"))


@pytest.fixture
def store_settings(valkey: Valkey, tmp_path: Path) -> StoreSettings:
    return StoreSettings(redis_url=valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES, uploads_url=f"file://{tmp_path}")


@pytest.fixture
async def api(start_api: StartApi, tmp_path: Path) -> httpx.AsyncClient:
    return await start_api(
        uploads_url=f"file://{tmp_path}",
        uploads_spool_bytes_max=BUDGET,
        uploads_free_bytes_min=1,
        item_bytes_max=1 << 20,
        room_wait_seconds_max=0.3,
    )


async def test_a_full_spool_answers_503_with_retry_after_and_keeps_nothing(
    api: httpx.AsyncClient, store: Store, shirt: bytes, tmp_path: Path
) -> None:
    for number in range(7):
        assert (await api.post("/v1/jobs", content=large(shirt, number), headers=PNG)).status_code == 202
    before = store.keys()
    answer = await api.post("/v1/jobs", content=large(shirt), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["Retry-After"] == "60", "the maximum, because nothing drains"
    assert (store.keys(), len(files(tmp_path))) == (before, 7)
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202, "small ones go to Redis"

    lease = store.claim()
    store.leases.finish(
        lease.token, [it._replace(file=by.file) for it, by in zip(finished(lease), lease.chunks, strict=True)]
    )
    assert files(tmp_path) == []

    repeat = asyncio.create_task(repeated(api, large(shirt)))
    assert (await asyncio.wait_for(repeat, 30)).status_code == 202


async def test_without_free_space_a_large_upload_is_refused_for_a_time_that_is_known(
    start_api: StartApi, store: Store, shirt: bytes, tmp_path: Path
) -> None:
    disk = os.statvfs(tmp_path)
    reserve = disk.f_blocks * disk.f_frsize - 1  # something is always in use
    api = await start_api(uploads_url=f"file://{tmp_path}", uploads_free_bytes_min=reserve)
    async with asyncio.timeout(60):
        answer = await api.post("/v1/jobs", content=large(shirt), headers=PNG)
        while answer.json().get("code") == "store_unavailable":  # it has not looked at its folder yet
            answer = await api.post("/v1/jobs", content=large(shirt), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["Retry-After"] == "60", "the maximum, because nothing drains"
    assert files(tmp_path) == []
    assert (await api.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202, "small ones go to Redis"


async def test_a_large_failed_image_is_retried(
    api: httpx.AsyncClient, store: Store, shirt: bytes, tmp_path: Path
) -> None:
    job = (await api.post("/v1/jobs", content=large(shirt), headers=PNG)).json()
    lease = store.claim()
    failed = [
        it._replace(retained=pack_retained([(0, large(shirt))]), succeeded=0, file=lease.chunks[0].file)
        for it in finished(lease, Failure(ItemCode.TIMEOUT))
    ]
    store.leases.finish(lease.token, store.leases.with_kept_images(failed))
    (kept,) = files(tmp_path)

    answer = await api.post(f"{job['links']['self']}/retry")
    assert (answer.status_code, answer.json()["retry_of"]) == (202, job["id"])
    (again,) = store.claim().chunks
    assert unpack_upload(again.upload, 1) == [large(shirt)]
    assert again.chunk_ref.spooled
    assert {path.name for path in files(tmp_path)} == {kept.name, again.file}


async def repeated(api: httpx.AsyncClient, image: bytes) -> httpx.Response:
    """The first answer that is none of 503: the API looks at its folder once a second."""
    while (answer := await api.post("/v1/jobs", content=image, headers=PNG)).status_code == 503:
        pass
    return answer


async def test_a_stream_that_finds_no_room_is_refused_and_gives_back_its_files(
    api: httpx.AsyncClient, store: Store, shirt: bytes, tmp_path: Path
) -> None:
    tar = make_tar({f"{n}.png": large(shirt, n) for n in range(12)})
    answer = await api.post("/v1/jobs", content=tar, headers=TAR)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    await eventually(lambda: files(tmp_path) == [], what="the removal of the canceled job's files")
    assert store.stat("spooled") == 0


async def test_a_repeat_with_the_same_key_is_the_same_job_and_leaves_one_file(
    api: httpx.AsyncClient, shirt: bytes, tmp_path: Path
) -> None:
    headers = PNG | {"Idempotency-Key": "once"}
    answers = [await api.post("/v1/jobs", content=large(shirt), headers=headers) for _ in range(2)]
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert len(files(tmp_path)) == 1
    other = await api.post("/v1/jobs", content=large(shirt, 1), headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"
    assert len(files(tmp_path)) == 1


async def test_all_that_was_accepted_is_classified_and_the_folder_is_empty_then(
    stack: Stack, shirt: bytes, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    settings = {"UPLOADS_URL": f"file://{spool}", "UPLOADS_FREE_BYTES_MIN": "1"}
    api = stack.api(**settings)
    ids = await submit_all(api.url, [large(shirt, number) for number in range(40)])
    assert len(files(spool)) == 40
    assert stack.redis.info("memory")["used_memory"] < 10 << 20
    api.signal(signal.SIGKILL)
    api.wait()
    api.start()
    await asyncio.to_thread(stack.worker, **settings)
    assert {result["class"] for result in await results_of(api.url, ids)} == {"Shirt"}
    await eventually(lambda: files(spool) == [], what="the removal of the files")
    assert (stack.stat("spooled"), stack.stat("uploads")) == (0, 0)


async def test_a_lost_file_fails_its_images_alone(stack: Stack, shirt: bytes, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    settings = {"UPLOADS_URL": f"file://{spool}", "UPLOADS_FREE_BYTES_MIN": "1"}
    api = stack.api(**settings)
    ids = await submit_all(api.url, [large(shirt, number) for number in range(4)])
    lost, damaged, *_ = files(spool)
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    await asyncio.to_thread(stack.worker, **settings)
    results = await results_of(api.url, ids)
    codes = [result["error"]["code"] if "error" in result else result["class"] for result in results]
    assert sorted(codes) == ["Shirt", "Shirt", "upload_lost", "upload_lost"], json.dumps(results)
