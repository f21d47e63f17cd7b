"""The promise, shown on real processes: whatever dies, every accepted image gets its class, once."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import aiohttp
import httpx
import pytest

from jobs.store import keys
from jobs.store.keys import OwnerToken
from tests.support.pictures import LIMITS, encode, photo
from tests.support.processes import ROOT
from tests.support.stack import PNG, Stack, load_client, results_of, submit_all
from tests.support.waiting import eventually, wait_until
from worker.inference.packages.load import load_package

QUEUE = f"{keys.QUEUE}fmnist-mlp"


@pytest.fixture(scope="session")
def classes(test_images: list[bytes]) -> list[str]:
    """The classes that the model gives the test images, called in this process."""
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    outcomes = classifier.classify(test_images, [1] * len(test_images))
    assert all(isinstance(outcome, list) for outcome in outcomes)
    return [classifier.card.classes[outcome[0].class_index] for outcome in outcomes if isinstance(outcome, list)]


async def all_succeeded(stack: Stack, url: str, job_ids: list[str], classes: list[str]) -> None:
    """Every job succeeded with its class, each has one transition, and nothing is left over."""
    results = await results_of(url, job_ids)
    assert {result["status"] for result in results} == {"succeeded"}
    assert [result["class"] for result in results] == list(islice(cycle(classes), len(job_ids)))
    assert stack.stat("transitions") == len(job_ids)
    assert (stack.stat("uploads"), stack.stat("pending:public")) == (0, 0)
    wait_until(lambda: stack.redis.exists(keys.LEASES) == 0, what="the end of all leases")
    assert stack.redis.keys(keys.UPLOAD + "*") + stack.redis.keys(keys.LEASED_CHUNKS + "*") == []


async def submit_until(ended: asyncio.Task[Any], url: str, images: Iterator[bytes]) -> list[str]:
    """Submit images, hundreds at a time, until the task has ended. Returns the ids of the jobs, in order."""
    ids = list[str]()
    while not ended.done():
        ids += await submit_all(url, list(islice(images, 300)))
    await ended
    return ids


async def test_three_children_are_killed_each_while_it_holds_a_lease(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    api, worker = stack.api(), stack.worker()
    images = cycle(test_images)
    # A `finish` that the server sees for the first time runs after the claim of the same round trip: a child that dies
    # between the two has two leases. From the second `finish` on it has one.
    ids = await submit_all(api.url, [next(images)])
    await results_of(api.url, ids)

    def kill_child() -> None:
        os.kill(stack.freeze_child_with_lease(worker), signal.SIGKILL)

    for _ in range(3):
        ids += await submit_until(asyncio.create_task(asyncio.to_thread(kill_child)), api.url, images)

    await all_succeeded(stack, api.url, ids, classes)
    freed = [
        line.partition("worker.reaper.dead_children: ")[2]
        for line in worker.output().splitlines()
        if "ready again" in line
    ]
    assert len(freed) == 3, worker.output()
    assert all("of a dead child" in line and line.startswith("worker_crashed: ") for line in freed), freed


async def test_three_workers_are_killed_each_while_a_child_holds_a_lease(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    api, worker, ids = stack.api(), stack.worker(), list[str]()
    images = cycle(test_images)

    def kill_worker() -> None:
        stack.freeze_child_with_lease(worker)
        worker.kill()

    for _ in range(3):
        ids += await submit_until(asyncio.create_task(asyncio.to_thread(kill_worker)), api.url, images)
        worker = await asyncio.to_thread(stack.worker)

    await all_succeeded(stack, api.url, ids, classes)


async def test_the_late_finish_of_a_child_that_slept_through_its_lease_is_refused(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    # Its main process would end it, too, before a slow machine has started the other worker.
    patient = {"TASK_TIME_LIMIT_SECONDS": "600", "STORE_TIMEOUT_SECONDS": "300"}
    api, sleeper = stack.api(), stack.worker(children=1, **patient)
    images = cycle(test_images)
    freezing = asyncio.create_task(asyncio.to_thread(stack.freeze_child_with_lease, sleeper))
    ids = await submit_until(freezing, api.url, images)
    pid = freezing.result()
    token = next(token for token in stack.redis.zrange(keys.LEASES, 0, -1) if OwnerToken.unpack(token).pid == pid)
    await asyncio.to_thread(stack.worker, children=1)

    results = await results_of(api.url, ids)
    assert stack.redis.zscore(keys.LEASES, token) is None, "the lease lapsed and was taken up by the other worker"
    os.kill(pid, signal.SIGCONT)
    more = await submit_all(api.url, list(islice(images, 100)))
    await results_of(api.url, more)

    assert await results_of(api.url, ids) == results, "no terminal state changed"
    await all_succeeded(stack, api.url, ids + more, classes)


async def test_an_emptied_celery_queue_is_rung_again(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    api = stack.api()
    ids = await submit_all(api.url, test_images[:200])
    worker = stack.worker()
    for _ in range(5):
        stack.redis.delete(QUEUE)
        ids += await submit_all(api.url, test_images[len(ids) : len(ids) + 20])
        stack.redis.delete(QUEUE)

    await all_succeeded(stack, api.url, ids, classes)
    assert worker.running()


async def test_duplicated_doorbells_double_nothing(stack: Stack, test_images: list[bytes], classes: list[str]) -> None:
    api = stack.api()
    stack.worker()
    template = stack.redis.get(keys.DOORBELL_TEMPLATE + "fmnist-mlp")
    assert template is not None
    ids = []
    for part in range(5):
        stack.redis.lpush(QUEUE, *[template.replace(b"BELLID", b"the-same-id")] * 10)
        ids += await submit_all(api.url, test_images[part * 40 : part * 40 + 40])

    await all_succeeded(stack, api.url, ids, classes)


async def test_redis_is_killed_under_load_and_restarted_on_its_disk(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    api, worker = stack.api(), stack.worker()
    accepted: dict[int, str] = {}
    stop = False

    async def load(part: int) -> None:
        async with load_client(api.url) as client:
            for number in range(part, len(test_images), 8):
                while not stop and number not in accepted:  # refusals are fast: they must not use up all images
                    async with client.post("/v1/jobs", data=test_images[number], headers=PNG) as response:
                        if response.status == 202:
                            accepted[number] = (await response.json())["id"]
                        else:
                            assert response.status == 503, await response.text()

    loads = [asyncio.create_task(load(part)) for part in range(8)]
    await eventually(lambda: len(accepted) >= 100, what="100 accepted jobs")
    stack.valkey.kill()
    await asyncio.to_thread(stack.valkey.start)
    before = len(accepted)
    await eventually(lambda: len(accepted) >= before + 100, what="100 more")
    stop = True
    await asyncio.gather(*loads)

    results = await results_of(api.url, list(accepted.values()))
    assert [result.get("class") for result in results] == [classes[number] for number in accepted]
    assert worker.running()
    assert "raised unexpected" not in worker.output(), "Celery's main process may trip over a torn traceback"
    wait_until(lambda: stack.redis.exists(keys.LEASES) == 0, what="the end of all leases")
    assert stack.stat("transitions") == sum(1 for _ in stack.redis.scan_iter(keys.JOB + "*")), "one for each job"


async def test_work_goes_on_after_an_outage_that_each_connection_has_seen(stack: Stack, shirt: bytes) -> None:
    """The intervals between two attempts are shown in tests/unit/worker/test_broker.py."""
    api, worker = stack.api(), stack.worker(children=1)
    stack.valkey.kill()
    problems = ("doorbells: waiting for Redis", "lease renewer of", "housekeeping: waiting for Redis")
    await eventually(lambda: all(problem in worker.output() for problem in problems), what="attempts to connect")
    await asyncio.to_thread(stack.valkey.start)

    async with load_client(api.url) as client:

        async def accepted() -> str:
            while True:
                async with client.post("/v1/jobs", data=shirt, headers=PNG) as response:
                    if response.status == 202:
                        return str((await response.json())["id"])
                await asyncio.sleep(0.05)

        async with asyncio.timeout(60):
            job_id = await accepted()
    await results_of(api.url, [job_id])

    lines = [line for line in worker.output().splitlines() if "Redis" in line or "annot connect" in line]
    assert len(lines) <= 8, lines
    assert "doorbells: waiting for Redis: over" in worker.output(), "Celery's own connection logs no such line"


async def test_an_api_killed_between_write_and_answer_loses_nothing(
    stack: Stack, test_images: list[bytes], classes: list[str]
) -> None:
    api = stack.api()
    await submit_all(api.url, test_images[:1])
    stack.valkey.signal(signal.SIGSTOP)
    body = test_images[1]
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: unread_bytes_of(stack) > len(body), what="the submit in the frozen server's buffer")
        api.kill()
    stack.valkey.signal(signal.SIGCONT)
    worker, api = stack.worker(), stack.api()

    stack.wait_for_transitions(2)
    async with httpx.AsyncClient(base_url=api.url) as client:
        listed = (await client.get("/v1/jobs")).json()["jobs"]
    assert [job["result"]["class"] for job in listed] == classes[1::-1]
    assert worker.running()


def unread_bytes_of(stack: Stack) -> int:
    """Bytes that wait in the receive buffers of the server's connections (`ss` shows the queues of unix sockets)."""
    lines = subprocess.run(["ss", "-xHn"], capture_output=True, text=True, check=True).stdout.splitlines()
    return sum(int(line.split()[2]) for line in lines if str(stack.valkey.socket) in line)


async def test_a_lease_is_renewed_while_its_batch_takes_longer(stack: Stack, shirt: bytes) -> None:
    """Without renewals the reaper would release these images twice."""
    short = {"LEASE_SECONDS": "2", "RENEW_SECONDS": "0.2", "REAP_SECONDS": "0.1", "SLOW_IMAGE_SECONDS": "60"}
    large = encode(photo(shirt, size=(6400, 4800)), "WEBP", quality=20)  # not decoded at a reduced scale, as a JPEG is
    api, worker = stack.api(), stack.worker(children=1, **short)
    form = aiohttp.FormData()
    for number in range(48):
        form.add_field("files", large, filename=f"{number}.webp")

    async with load_client(api.url) as client:
        async with client.post("/v1/jobs", data=form) as response:
            job = await response.json()
        assert job["counts"]["total"] == 48
        found = await eventually(lambda: stack.redis.zrange(keys.LEASES, 0, -1, withscores=True), what="a lease")
        token, end = found[0]
        await eventually(lambda: (stack.redis.zscore(keys.LEASES, token) or 0) > end + 2000, what="renewals")
        async with asyncio.timeout(120):
            while job["status"] in ("queued", "running"):
                async with client.get(f"{job['links']['self']}?wait=30") as response:
                    job = await response.json()
        assert job["counts"]["succeeded"] == 48

    assert "lapsed" not in worker.output()
    assert stack.stat("transitions") == 48
