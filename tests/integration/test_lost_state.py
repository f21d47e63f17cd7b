"""Redis comes back without its data, or without its last writes, under processes that run on."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from jobs.store import keys
from tests.support.archives import make_tar
from tests.support.processes import MAXMEMORY_BYTES, Process
from tests.support.stack import Stack, results_of, submit_all
from tests.support.uploads import TAR, numbered_images
from tests.support.waiting import eventually, wait_until

MODEL = "fmnist-mlp"


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz").is_success


def lose_data(stack: Stack) -> None:
    stack.redis.flushall()


def lose_volume(stack: Stack) -> None:
    """Kill the server, and start it again without its append-only file."""
    stack.valkey.kill()
    (files,) = stack.valkey.socket.parent.glob("appendonly*")
    shutil.rmtree(files)
    stack.valkey.start()


@pytest.mark.parametrize("lose", [lose_data, lose_volume])
async def test_a_running_worker_works_for_a_redis_that_has_lost_everything(
    stack: Stack, shirt: bytes, lose: Callable[[Stack], None]
) -> None:
    api, worker = stack.api(), stack.worker(children=1)
    await results_of(api.url, await submit_all(api.url, [shirt]))

    await asyncio.to_thread(lose, stack)

    def shows(**counts: int) -> bool:
        answer = httpx.get(f"{api.url}/v1/models/{MODEL}")
        return answer.is_success and bool(answer.json()["models"][0]["serving"] == counts)

    await eventually(lambda: is_ready(api.url), what="an API that accepts jobs")

    await eventually(lambda: stack.redis.exists(keys.HEARTBEATS + MODEL), what="a heartbeat: no child lingers any more")
    await eventually(lambda: shows(workers=1, processes=1), what="the worker in the list of models")
    await results_of(api.url, await submit_all(api.url, [shirt]))
    await eventually(lambda: stack.redis.exists(keys.SIGNING_KEY), what="the key that signs ids, written again")

    await asyncio.to_thread(worker.stop)
    await eventually(lambda: shows(workers=0, processes=0), what="the end of the worker in the list")
    await eventually(lambda: is_ready(api.url), what="an API that accepts jobs without a worker")


async def test_the_api_shows_no_process_whose_doorbell_cannot_be_rung(stack: Stack, shirt: bytes) -> None:
    api, worker = stack.api(), stack.worker(children=1, REAP_SECONDS="30", RENEW_SECONDS="0.2")
    await results_of(api.url, await submit_all(api.url, [shirt]))
    stack.redis.flushall()
    heartbeats = keys.HEARTBEATS + MODEL
    await eventually(lambda: stack.redis.exists(heartbeats), what="a heartbeat of the running child")
    async with httpx.AsyncClient(base_url=api.url) as client:
        (model,) = (await client.get(f"/v1/models/{MODEL}")).json()["models"]
    assert model["serving"] == {"workers": 0, "processes": 0}
    assert worker.running()


async def test_two_apis_sign_ids_with_one_key_after_redis_has_lost_it(stack: Stack, shirt: bytes) -> None:
    api = stack.api()
    stack.redis.flushall()
    other = stack.api()  # it makes a new key, unless the first one has written its own again

    def both_know_one_id() -> bool:
        path = httpx.post(f"{api.url}/v1/jobs?open=true").headers["Location"]
        httpx.delete(f"{other.url}{path}")
        return [httpx.get(f"{it.url}{path}").status_code for it in (api, other)] == [410, 410]

    await eventually(both_know_one_id, what="one key")


def test_an_outbound_worker_registers_its_doorbell_again(stack: Stack, tmp_path: Path) -> None:
    settings = {"REDIS_URL": stack.valkey.url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "REAP_SECONDS": "0.2"}
    doorbell = keys.DOORBELL_TEMPLATE + keys.FETCH
    with Process([sys.executable, "-m", "worker.outbound"], tmp_path / "outbound.log", settings):
        wait_until(lambda: stack.redis.zcard(keys.HEARTBEATS + keys.FETCH), what="the outbound worker")
        template = stack.redis.get(doorbell)
        stack.redis.flushall()
        wait_until(lambda: stack.redis.exists(doorbell), what="its doorbell")
        assert stack.redis.get(doorbell) == template


async def test_a_stream_is_not_accepted_by_a_redis_that_has_lost_a_part_of_it(stack: Stack, shirt: bytes) -> None:
    """As after a power cut with `appendfsync everysec`. A repeat is accepted as a whole."""
    api, data, lost = stack.api(), make_tar(numbered_images(shirt, 384)), asyncio.Event()
    headers = TAR | {"Idempotency-Key": "one"}

    def chunks(at_least: int) -> bytes | None:
        found = stack.redis.keys(keys.JOB + "*")
        return found[0] if found and int(stack.redis.hget(found[0], keys.FIELDS["chunks"]) or 0) >= at_least else None

    async def body() -> AsyncIterator[bytes]:
        yield data[: len(data) // 3]
        job = await eventually(lambda: chunks(1), what="the first chunks")
        stack.redis.copy(job, "backup")
        yield data[len(data) // 3 : len(data) * 2 // 3]
        await eventually(lambda: chunks(4), what="more chunks")
        stack.redis.copy("backup", job, replace=True)
        lost.set()
        yield data[len(data) * 2 // 3 :]

    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        broken = await client.post("/v1/jobs", content=body(), headers=headers)
        assert lost.is_set()
        assert (broken.status_code, broken.json()["code"]) == (503, "store_unavailable"), broken.text
        again = await client.post("/v1/jobs", content=data, headers=headers)
        assert (again.status_code, again.json()["counts"]["total"]) == (202, 384)
        jobs = (await client.get("/v1/jobs")).json()["jobs"]
        assert sorted(job["status"] for job in jobs) == ["canceled", "queued"]


async def test_a_stream_into_a_redis_that_has_lost_its_job_may_be_repeated(stack: Stack, shirt: bytes) -> None:
    """All of it is one chunk, so the loss shows when the last byte has come."""
    api, data = stack.api(), make_tar(numbered_images(shirt, 8))
    headers = TAR | {"Idempotency-Key": "one"}

    async def body() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        await eventually(lambda: stack.redis.keys(keys.JOB + "*"), what="the open job")
        stack.redis.flushall()
        yield data[len(data) // 2 :]

    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        broken = await client.post("/v1/jobs", content=body(), headers=headers)
        assert (broken.status_code, broken.json()["code"]) == (503, "store_unavailable"), broken.text
        assert broken.headers["Retry-After"]
        again = await client.post("/v1/jobs", content=data, headers=headers)
        assert again.status_code == 202, again.text
