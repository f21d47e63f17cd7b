"""A real child that is killed while it has a bulk lease and, between two slices of it, an interactive lease."""

import asyncio
import os
import signal
from collections import defaultdict

import aiohttp

from jobs.records import ChunkRef
from jobs.store import keys
from jobs.store.job_hash import chunk_field
from jobs.store.keys import OwnerToken
from tests.support.pictures import encode, photo
from tests.support.stack import Stack, load_client
from tests.support.waiting import wait_until

BULK_IMAGES = 24


def freeze_child_with_two_leases(stack: Stack, among: list[int]) -> tuple[int, set[bytes]]:
    """Stop one of these children at a moment when it has two leases. Returns its pid and their chunks."""
    found: list[tuple[int, set[bytes]]] = []

    def frozen() -> bool:
        leases = defaultdict[int, list[bytes]](list)
        for token in stack.redis.zrange(keys.LEASES, 0, -1):
            leases[OwnerToken.unpack(token).pid].append(token)
        for pid in {pid for pid, tokens in leases.items() if len(tokens) == 2} & set(among):
            os.kill(pid, signal.SIGSTOP)
            chunks = [stack.redis.smembers(keys.LEASED_CHUNKS.encode() + token) for token in leases[pid]]
            if all(chunks):
                found.append((pid, set().union(*chunks)))
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    wait_until(frozen, what="a child with two leases", poll_seconds=0.0005)
    return found[0]


async def test_nothing_is_lost_doubled_or_failed_when_a_child_dies_with_two_leases(stack: Stack, shirt: bytes) -> None:
    large = encode(photo(shirt, size=(2000, 1500)), "JPEG", quality=20)
    api, worker = stack.api(), stack.worker(children=1)
    form = aiohttp.FormData()
    for number in range(BULK_IMAGES):
        form.add_field("files", large, filename=f"{number}.jpg")

    async with load_client(api.url) as client:

        async def submit(body: aiohttp.FormData | bytes, lane: str) -> str:
            headers = {"Content-Type": "image/jpeg"} if isinstance(body, bytes) else {}
            async with client.post(f"/v1/jobs?lane={lane}", data=body, headers=headers) as response:
                assert response.status == 202, await response.text()
                return str((await response.json())["links"]["self"])

        jobs = [await submit(form, "bulk")]
        freezing = asyncio.create_task(asyncio.to_thread(freeze_child_with_two_leases, stack, worker.children()))
        while not freezing.done():
            jobs.append(await submit(large, "interactive"))
        pid, chunks = await freezing
        os.kill(pid, signal.SIGKILL)
        for job in jobs:
            async with client.get(f"{job}?wait=30") as response:
                counts = (await response.json())["counts"]
            assert counts["succeeded"] == counts["total"], counts

    items = BULK_IMAGES + len(jobs) - 1
    assert stack.stat("transitions") == items
    assert (stack.stat("uploads"), stack.stat("pending:public")) == (0, 0)
    wait_until(
        lambda: stack.redis.exists(keys.LEASES, f"{keys.ROTATION}fmnist-mlp:{keys.SUSPECT_LANE}") == 0,
        what="the end of all leases",
    )
    freed = [line for line in worker.output().splitlines() if "of a dead child are ready again" in line]
    assert len(freed) == 2, worker.output()
    for chunk in chunks:
        ref = ChunkRef.unpack(chunk)
        charges = stack.redis.hget(keys.JOB.encode() + ref.job_id, chunk_field("failure_counts", ref.chunk))
        assert charges is not None
        assert b'"crashes":1' in charges
