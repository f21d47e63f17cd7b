"""`GET /v1/server`: what a client may know of the server, and nothing of other owners."""

import asyncio
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Any

import httpx
import pytest

from api.server_schema import ServerResource
from jobs import VERSION
from jobs.records import Lane
from jobs.store import keys
from jobs.store.for_api.queue_reader import QueueReader
from jobs.store.keys import Heartbeat
from jobs.store.queue_reading import Waiting
from tests.integration.api.conftest import StartApi
from tests.support.processes import MAXMEMORY_BYTES, ROOT
from tests.support.store import MODEL, Store
from tests.support.uploads import finish_all


async def server(api: httpx.AsyncClient) -> dict[str, Any]:
    answer = await api.get("/v1/server")
    assert answer.status_code == 200
    view: dict[str, Any] = answer.json()
    ServerResource.model_validate(view)
    return view


async def test_an_idle_server_shows_its_limits(start_api: StartApi, store: Store) -> None:
    api = await start_api(
        item_bytes_max=5000,
        job_items_max=77,
        open_job_seconds_max=12,
        result_ttl_seconds=60 * 60,
        image_formats=["avif"],
    )
    view = await server(api)
    assert abs(datetime.fromisoformat(view.pop("time")) - datetime.now(UTC)) < timedelta(hours=1)
    assert view == {
        "version": VERSION,
        "default_model": MODEL,
        "limits": {
            "image_bytes_max": 5000,
            "items_max": 77,
            "open_job_idle_seconds": 12,
            "results_kept_seconds": 60 * 60,
            "formats": ["png", "jpeg", "webp", "gif", "bmp", "avif"],
        },
        "queue": {
            "interactive": {"images": 0, "oldest_seconds": None},
            "bulk": {"images": 0, "oldest_seconds": None},
        },
        "images_per_second": 0,
        "workers": 0,
        "budgets": {
            "uploads": {"used_bytes": 0, "bytes_max": MAXMEMORY_BYTES // 2},
            "records": {"used_bytes": 0, "bytes_max": int(MAXMEMORY_BYTES * 0.3)},
        },
    }


async def test_what_waits_is_counted_by_lane(start_api: StartApi, store: Store) -> None:
    await store.submit(b"image", owner="alice")
    await store.submit(b"image", b"image", owner="bob")
    await store.submit(*[b"image"] * 600, owner="alice", lane=Lane.BULK, chunk_items=2)  # more chunks than are read
    store.claim(items=1, turn=0)  # what a worker has does not wait
    view = await server(await start_api())
    queue = view["queue"]
    assert queue["interactive"]["images"] == 2
    assert queue["bulk"]["images"] == 600
    assert all(0 <= lane["oldest_seconds"] < 600 for lane in queue.values())
    assert view["budgets"]["uploads"]["used_bytes"] == store.stat("uploads") > 0
    assert view["budgets"]["records"]["used_bytes"] == store.stat("records") > 0
    text = str(view)
    assert "alice" not in text
    assert "bob" not in text


async def test_the_oldest_image_has_an_age(start_api: StartApi, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0, 100, 50):
        with monkeypatch.context() as patch:
            patch.setattr("jobs.ids.time.time_ns", lambda: time_ns() - seconds * 10**9)  # noqa: B023
            await store.submit(b"image")
    await store.submit(b"image", b"image", lane=Lane.BULK)
    queue = (await server(await start_api()))["queue"]
    assert 100 <= queue["interactive"]["oldest_seconds"] < 160
    assert queue["bulk"]["oldest_seconds"] < 60


async def test_images_a_second_are_those_that_ended(start_api: StartApi, store: Store) -> None:
    api = await start_api()
    async with asyncio.timeout(60):
        while not (rate := (await server(api))["images_per_second"]):
            await store.submit(*[b"image"] * 8)
            finish_all(store)
    assert rate > 0
    async with asyncio.timeout(60):
        while (await server(api))["images_per_second"] >= rate:  # nothing ends any more
            pass


async def test_workers_are_counted_once(start_api: StartApi, store: Store) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    for worker_id, pid in (("worker1", 11), ("worker1", 12), ("worker2", 21)):
        store.leases.heartbeat([(MODEL, Heartbeat("fmnist-mlp@1", worker_id, pid))], seconds=60)
    assert (await server(await start_api()))["workers"] == 2


async def test_many_questions_are_one_read(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = QueueReader.waiting, 0

    async def count(queue: QueueReader, models: Iterable[str]) -> dict[Lane, Waiting]:
        nonlocal reads
        reads += 1
        return await read(queue, models)

    monkeypatch.setattr(QueueReader, "waiting", count)
    monkeypatch.setattr("api.server_status._KEPT_SECONDS", 60)
    api = await start_api()
    views = await asyncio.gather(*(server(api) for _ in range(20)))
    assert (reads, len({view["time"] for view in views})) == (1, 1)


async def test_a_model_that_is_not_known_is_no_default(start_api: StartApi) -> None:
    assert (await server(await start_api(default_model="resnet")))["default_model"] is None


async def test_a_key_is_needed(start_api: StartApi) -> None:
    api = await start_api(api_keys={"alice": "a-long-key-of-alice"})
    assert (await api.get("/v1/server")).status_code == 401
    assert (await api.get("/v1/server", headers={"Authorization": "Bearer a-long-key-of-alice"})).status_code == 200


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
