"""One owner takes what he can get of what all share; another one is still served."""

import asyncio
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx

from api.uploads.zip_spool import ZipSpools
from jobs.store import keys
from jobs.store.for_api.upload_budget import UploadBudget
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar, make_zip
from tests.support.store import Store
from tests.support.uploads import PNG, TAR, ZIP, numbered_images
from tests.support.waiting import eventually

KEYS = {"alice": "alice-key-0123456789", "bob": "bob-key-0123456789"}
ALICE, BOB = ({"Authorization": f"Bearer {key}"} for key in KEYS.values())


class Unfinished:
    """Uploads of which the last byte is held back until `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.tasks = list[asyncio.Task[httpx.Response]]()

    def start(self, api: httpx.AsyncClient, data: bytes, headers: dict[str, str]) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield data[:-1]
            await self.go_on.wait()
            yield data[-1:]

        self.tasks.append(asyncio.create_task(api.post("/v1/jobs", content=body(), headers=headers)))

    async def finish(self) -> list[int]:
        self.go_on.set()
        return [answer.status_code for answer in await asyncio.gather(*self.tasks)]


async def test_streams_of_one_owner_leave_some_to_another(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(api_keys=KEYS, upload_streams_max=4)
    data, uploads = make_tar(numbered_images(shirt, 3)), Unfinished()
    for key in ("1", "2"):
        uploads.start(api, data, ALICE | TAR | {"Idempotency-Key": key})
    await eventually(lambda: len(store.redis.keys(f"{keys.IDEMPOTENCY_KEY}*")) == 2, what="the jobs of both")
    refused = await api.post("/v1/jobs", content=data, headers=ALICE | TAR)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert (await api.post("/v1/jobs", content=data, headers=BOB | TAR)).status_code == 202
    assert await uploads.finish() == [202, 202]
    assert (await api.post("/v1/jobs", content=data, headers=ALICE | TAR)).status_code == 202


async def test_followed_jobs_of_one_owner_leave_streams_to_another(start_api: StartApi, shirt: bytes) -> None:
    api = await start_api(api_keys=KEYS, held_streams_max=4)
    paths = [
        f"/v1/jobs/{(await api.post('/v1/jobs', content=shirt, headers=who | PNG)).json()['id']}/events"
        for who in (ALICE, BOB)
    ]
    texts = list[AsyncIterator[str]]()
    async with AsyncExitStack() as streams:
        for who, path in ((ALICE, paths[0]), (ALICE, paths[0]), (BOB, paths[1])):
            answer = await streams.enter_async_context(api.stream("GET", path, headers=who))
            assert answer.status_code == 200
            texts.append(answer.aiter_text())
            await anext(texts[-1])
        async with asyncio.timeout(30):  # accepted, it would not end
            refused = await api.get(paths[0], headers=ALICE)
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")


async def test_unfinished_images_of_one_owner_leave_room_to_another(
    start_api: StartApi, shirt: bytes, budgets: list[UploadBudget]
) -> None:
    api = await start_api(
        api_keys=KEYS, redis_maxmemory_bytes=8 << 20, uploads_budget_fraction=0.25, item_bytes_max=1 << 20
    )
    uploads = Unfinished()
    for _ in range(4):  # a MiB of two
        uploads.start(api, bytes(1 << 18), ALICE | PNG)

    await eventually(lambda: budgets[0].open_bytes == 4 * ((1 << 18) - 1), what="all but their last bytes")
    assert (await api.post("/v1/jobs", content=shirt, headers=ALICE | PNG)).status_code == 503
    assert (await api.post("/v1/jobs", content=shirt, headers=BOB | PNG)).status_code == 202
    await uploads.finish()
    assert (await api.post("/v1/jobs", content=shirt, headers=ALICE | PNG)).status_code == 202


async def test_zips_of_one_owner_leave_disk_space_to_another(
    start_api: StartApi, shirt: bytes, zip_spools: list[ZipSpools]
) -> None:
    api = await start_api(api_keys=KEYS, zip_bytes_max=3 << 20, zip_disk_bytes_max=6 << 20)
    large, small = (
        make_zip({"a.png": shirt + bytes(size)}, compression=zipfile.ZIP_STORED) for size in (2_900_000, 1_200_000)
    )
    uploads = Unfinished()
    uploads.start(api, large, ALICE | ZIP)

    await eventually(lambda: zip_spools[0].total_bytes >= 2 << 20, what="the first two of its pieces of a MiB")
    refused = await api.post("/v1/jobs", content=large, headers=ALICE | ZIP)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await api.post("/v1/jobs", content=small, headers=BOB | ZIP)).status_code == 202
    assert await uploads.finish() == [202]
    assert (await api.post("/v1/jobs", content=large, headers=ALICE | ZIP)).status_code == 202
    assert zip_spools[0].total_bytes == 0
