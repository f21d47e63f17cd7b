"""Bulk jobs through real processes: more bytes than Redis has memory, and no keys left afterwards."""

import asyncio
import signal
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobs.store import keys
from tests.support.archives import make_tar, make_zip
from tests.support.keyspace import unreachable
from tests.support.pictures import encode, photo
from tests.support.stack import PNG, Stack, load_client
from tests.support.store import OWNER
from tests.support.waiting import wait_until

TAR = {"Content-Type": "application/x-tar"}
MEMORY = 64 << 20


async def tar_of(image: bytes, count: int) -> AsyncIterator[bytes]:
    """A tar archive of many images, which is never in memory as a whole."""
    for number in range(count):
        member = tarfile.TarInfo(f"{number:06}.jpg")
        member.size = len(image)
        yield member.tobuf() + image + bytes(-len(image) % 512)
    yield bytes(1024)


async def ended(client: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    while True:
        async with client.get(f"{path}?wait=20") as response:
            job: dict[str, Any] = await response.json()
            if job["status"] in ("completed", "failed", "canceled"):
                return job


async def test_five_times_redis_memory_goes_through_it_and_nothing_is_lost(tmp_path: Path, shirt: bytes) -> None:
    """Three streams are read as fast as the workers drain them; single uploads are accepted all the time."""
    image = encode(photo(shirt, size=(640, 480)), "JPEG", quality=95)
    each = 5 * MEMORY // len(image) // 3 + 1
    with Stack(tmp_path, maxmemory_bytes=MEMORY) as stack:
        api = stack.api()
        stack.worker()
        refused = 0

        async def singles(client: aiohttp.ClientSession) -> None:
            nonlocal refused
            while True:
                async with client.post("/v1/jobs", data=shirt, headers=PNG) as response:
                    refused += response.status != 202
                await asyncio.sleep(0.01)

        async with load_client(api.url) as client:

            async def stream() -> dict[str, Any]:
                async with client.post("/v1/jobs", data=tar_of(image, each), headers=TAR) as response:
                    assert response.status == 202, await response.text()
                    return await ended(client, response.headers["Location"])

            small = asyncio.create_task(singles(client))
            jobs = await asyncio.gather(*(stream() for _ in range(3)))
            small.cancel()
        assert [job["counts"]["succeeded"] for job in jobs] == [each] * 3
        assert refused == 0
        peak = stack.redis.info("memory")["used_memory_peak"]
        print(f"{3 * each * len(image) >> 20} MiB through a Redis of {MEMORY >> 20} MiB: peak {peak >> 20} MiB")
        assert peak < MEMORY


async def test_the_api_dies_in_the_middle_of_a_stream_whose_job_is_found_again_and_ends(
    tmp_path: Path, shirt: bytes
) -> None:
    """The settings shorten the open job's deadline to about 13 s."""
    settings = {"UPLOAD_IDLE_SECONDS_MAX": "5", "ROOM_WAIT_SECONDS_MAX": "1", "SUBMIT_DEADLINE_SECONDS": "1"}
    data = make_tar({f"{n}.png": shirt for n in range(300)})
    headers = TAR | {"Idempotency-Key": "mine"}
    with Stack(tmp_path, **settings) as stack:
        api = stack.api()
        stack.worker()

        async def unfinished() -> AsyncIterator[bytes]:
            yield data[:-150_000]
            await asyncio.to_thread(wait_until, lambda: stack.stat("transitions") > 0, what="the first chunk's results")
            await asyncio.to_thread(api.kill)
            yield b"x"

        async with load_client(api.url) as client:
            with pytest.raises(aiohttp.ClientError):
                await client.post("/v1/jobs", data=unfinished(), headers=headers)
        api.start()
        async with load_client(api.url) as client:
            async with client.get("/v1/jobs?idempotency_key=mine") as response:
                (job,) = (await response.json())["jobs"]
            assert job["status"] == "open"
            async with client.post("/v1/jobs", data=data, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (409, "idempotency_in_progress")
            job = await ended(client, job["links"]["self"])
            assert job["status"] == "canceled"
            assert job["counts"]["succeeded"] > 0
            async with client.post("/v1/jobs", data=data, headers=headers) as response:
                again = await response.json()
            assert (await ended(client, again["links"]["self"]))["counts"]["succeeded"] == 300


@pytest.fixture
def bulk_stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, RESULT_TTL_SECONDS="3600", MIN_RESULT_TTL_SECONDS="1") as stack:
        yield stack


async def test_every_key_has_a_time_to_live_or_a_job_that_leads_to_it(bulk_stack: Stack, shirt: bytes) -> None:
    stack = bulk_stack
    api, worker = stack.api(), stack.worker()
    files = {f"{n}.png": shirt for n in range(300)}
    async with load_client(api.url) as client:

        async def post(path: str, data: bytes = b"", **headers: str) -> str:
            async with client.post(
                path, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()}
            ) as response:
                body = await response.json()
                return str(body.get("links", {}).get("self") or body.get("job_id", body.get("code")))

        tar, unfinished = make_tar(files), make_tar(files)[:-150_000]
        kinds = {"Content_Type": "application/x-tar"}
        done = [
            await post("/v1/jobs", shirt, Content_Type="image/png", Idempotency_Key="one"),
            await post("/v1/jobs", tar, Idempotency_Key="two", **kinds),
            await post("/v1/jobs", make_zip(files), Content_Type="application/zip"),
        ]
        for path in done:
            assert (await ended(client, path))["status"] == "completed"
        await post("/v1/jobs", unfinished, Idempotency_Key="three", **kinds)
        opened = await post("/v1/jobs?open=true", Idempotency_Key="four")
        await post(f"{opened}/items", unfinished, Idempotency_Key="part", **kinds)
        async with client.delete(done[1]) as response:
            assert response.status == 204

        # A stopped worker takes no doorbells: jobs submitted from now on wait, once its children are idle.
        worker.signal(signal.SIGSTOP)
        waiting = [await post("/v1/jobs", tar, **kinds) for _ in range(3)]
        await post(f"{waiting[0]}/cancel")
        async with client.delete(waiting[1]) as response:
            assert response.status == 204
        wait_until(lambda: not unreachable(stack.redis, owners=[OWNER]), what="the sweep of canceled and deleted jobs")
        worker.signal(signal.SIGCONT)

        # After all jobs are deleted, no key of them is left.
        async with client.get("/v1/jobs?limit=1000") as response:
            for job in (await response.json())["jobs"]:
                async with client.delete(job["links"]["self"]) as gone:
                    assert gone.status == 204
    patterns = (keys.JOB, keys.UPLOAD, keys.IDEMPOTENCY_KEY, keys.OWNER_JOBS, keys.LEASED_CHUNKS, keys.READY)
    wait_until(lambda: not any(stack.redis.keys(f"{p}*") for p in patterns), what="the end of every key of a job")
    wait_until(lambda: stack.stat("uploads") == stack.stat(f"pending:{OWNER}") == 0, what="counters at zero")
