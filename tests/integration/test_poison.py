"""Images that kill the process that decodes them: each has three tries, fails alone, and can be sent again."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobs.store import keys
from tests.support.packages import package
from tests.support.pictures import LIMITS, samples
from tests.support.poison_worker import marked, one_shade
from tests.support.processes import ROOT, Process, Worker, children_of
from tests.support.stack import PNG, Stack, load_client
from tests.support.waiting import eventually
from worker.inference.packages.load import load_package

TRIES_MAX = 3
SCRIPT = ROOT / "tests" / "support" / "poison_worker.py"
MEMORY_BYTES_MAX = 700 << 20
# A slow image is killed at the time limit, which must exceed the lease.
SETTINGS = {
    "TASK_TIME_LIMIT_SECONDS": "4",
    "LEASE_SECONDS": "3",
    "RENEW_SECONDS": "0.5",
    "CHILD_MEMORY_BYTES_MAX": str(MEMORY_BYTES_MAX),
    "WATCHDOG_SECONDS": "200",  # a poison can kill all children at once, and a slow machine starts them slowly
    "PYTHONPATH": str(ROOT),
}


class PoisonWorker(Worker):
    def __init__(self, redis_url: str, folder: Path, **settings: str) -> None:
        self.touched = folder / "touched"
        self.touched.touch()
        super().__init__(redis_url, folder / "poison.log", POISON_LOG=str(self.touched), **settings)
        self.arguments = [sys.executable, str(SCRIPT)]

    def start(self) -> None:
        """Without a wait for ready children: the poison may kill one before the other has started."""
        Process.start(self)

    def tries(self) -> int:
        return len(self.touched.read_text().splitlines())


def classes_of(images: list[bytes]) -> list[str]:
    """The classes that the model gives them, called in this process."""
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    outcomes = classifier.classify(images, [1] * len(images))
    return [classifier.card.classes[outcome[0].class_index] for outcome in outcomes if isinstance(outcome, list)]


async def submit_form(client: aiohttp.ClientSession, images: list[bytes]) -> dict[str, Any]:
    form = aiohttp.FormData()
    for number, image in enumerate(images):
        form.add_field("files", image, filename=f"{number}.png")
    async with client.post("/v1/jobs", data=form) as response:
        assert response.status == 202, await response.text()
        job: dict[str, Any] = await response.json()
        return job


async def items_of(client: aiohttp.ClientSession, job: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    """The items of a job, once it has ended."""
    async with asyncio.timeout(300):
        while True:
            async with client.get(f"{job['links']['self']}?wait=20") as response:
                if (await response.json())["status"] not in ("queued", "running"):
                    break
    async with client.get(f"{job['links']['results']}?limit=1000{query}") as response:
        items: list[dict[str, Any]] = (await response.json())["items"]
        return items


async def test_a_signal_to_all_processes_of_a_worker_charges_nothing(
    stack: Stack, tmp_path: Path, shirt: bytes
) -> None:
    """As systemd stops a service, and `tini -g` a container, in the middle of an image of three seconds."""
    api = stack.api()
    async with load_client(api.url) as client:
        job = await submit_form(client, [marked(shirt, "slow")])
        with PoisonWorker(stack.valkey.url, tmp_path, **SETTINGS) as worker:
            await eventually(lambda: worker.tries() == 1, what="work on the image")
            for number in (signal.SIGHUP, signal.SIGTERM):
                for pid in children_of(worker.pid):
                    os.kill(pid, number)
            worker.signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait) == 0
            assert "ready again" not in worker.output()
        (item,) = await items_of(client, job)
    assert (item["status"], worker.tries()) == ("succeeded", 1)


async def test_a_worker_with_shorter_leases_leaves_those_of_another_alone(
    stack: Stack, tmp_path: Path, shirt: bytes
) -> None:
    """As in a rolling change of `LEASE_SECONDS`: the image takes longer than many looks of the other's reaper.

    The other worker serves another model, so that it cannot take the image itself.
    """
    package(tmp_path / "models", "another")
    settings = SETTINGS | {"TASK_TIME_LIMIT_SECONDS": "60", "REAP_SECONDS": "0.2"}
    long, short = settings | {"LEASE_SECONDS": "30"}, settings | {"LEASE_SECONDS": "4"}
    short |= {"MODEL": "another", "MODELS_DIR": str(tmp_path / "models")}
    folders = [tmp_path / name for name in ("long", "short")]
    for folder in folders:
        folder.mkdir()
    api = stack.api()
    with (
        PoisonWorker(stack.valkey.url, folders[0], **long) as worker,
        PoisonWorker(stack.valkey.url, folders[1], **short) as other,
    ):
        await eventually(lambda: stack.redis.exists(keys.HEARTBEATS + "another"), seconds=120, what="the other worker")
        async with load_client(api.url) as client:
            (item,) = await items_of(client, await submit_form(client, [marked(shirt, "slow")]))
        assert "ready again" not in worker.output() + other.output()
    assert (item["status"], worker.tries()) == ("succeeded", 1)


@pytest.mark.parametrize(("kind", "code", "tries"), [("gil", "timeout", 5), ("fleet", "worker_lost", 4)])
async def test_a_poison_that_takes_more_than_its_process_fails_alone(
    stack: Stack, tmp_path: Path, kind: str, code: str, tries: int
) -> None:
    """Native code that keeps the GIL, so that no thread can renew a lease; and what ends the parent as well.

    `gil`: two leases of it lapse together with others; then it runs alone, and is charged like a crash, three times.
    """
    healthy = list(samples().values())
    upload = [*healthy[:5], marked(healthy[0], kind), *healthy[5:11]]
    api = stack.api()
    settings = SETTINGS | {"LOSSES_MAX": "4", "TASK_TIME_LIMIT_SECONDS": "100", "STORE_TIMEOUT_SECONDS": "1"}
    async with load_client(api.url) as client:
        job = await submit_form(client, upload)
        singles = []
        for image in healthy[:5]:
            async with client.post("/v1/jobs", data=image, headers=PNG) as response:
                singles.append(await response.json())
        with PoisonWorker(stack.valkey.url, tmp_path, **settings) as worker:
            reading = asyncio.create_task(items_of(client, job))
            while not reading.done():
                if not worker.running():  # its supervisor starts it again
                    worker.start()
                await asyncio.wait([reading], timeout=0.1)
            items = reading.result()
            others = [(await items_of(client, single))[0] for single in singles]

    neighbours = [*items[:5], *items[6:], *others]
    assert [item.get("class") for item in neighbours] == classes_of([*healthy[:11], *healthy[:5]])
    assert (items[5]["status"], items[5]["error"]["code"]) == ("failed", code)
    assert worker.tries() == tries


@pytest.mark.parametrize(
    ("kind", "code", "tries"),
    [
        ("segfault", "worker_crashed", TRIES_MAX),
        ("exit", "worker_crashed", TRIES_MAX),
        ("hang", "timeout", TRIES_MAX),
        ("leak", "out_of_memory", TRIES_MAX),
        ("raise", "model_failed", 0),
    ],
)
async def test_a_poison_fails_alone(stack: Stack, tmp_path: Path, kind: str, code: str, tries: int) -> None:
    healthy = list(samples().values())
    poison = one_shade() if kind == "raise" else marked(healthy[0], kind)
    upload = [*healthy[:20], poison, *healthy[20:]]
    api = stack.api()
    async with load_client(api.url) as client:
        # All images wait when the worker starts, so that the poison shares its batch with all others.
        job = await submit_form(client, upload)
        singles = []
        for image in healthy[:10]:
            async with client.post("/v1/jobs", data=image, headers=PNG) as response:
                singles.append(await response.json())
        with PoisonWorker(stack.valkey.url, tmp_path, **SETTINGS) as worker:
            items = await items_of(client, job)
            others = [(await items_of(client, single))[0] for single in singles]

            neighbours = [*items[:20], *items[21:], *others]
            assert [item.get("class") for item in neighbours] == classes_of([*healthy, *healthy[:10]])
            assert (items[20]["status"], items[20]["error"]["code"]) == ("failed", code)
            assert worker.tries() == tries
            (shown,) = await items_of(client, job, "&status=failed")
            assert (shown["name"], shown["error"]["code"]) == ("20.png", code)
            assert shown["error"]["detail"]

            async with client.post(f"{job['links']['self']}/retry") as response:
                again = await response.json()
                assert (response.status, again["counts"]["total"]) == (202, 1)
            (item,) = await items_of(client, again)
            assert (item["name"], item["error"]["code"]) == ("20.png", code)
            assert worker.tries() == 2 * tries
            assert worker.running()
    assert stack.stat("transitions") == len(upload) + len(singles) + 1
    assert (stack.stat("uploads"), stack.stat("pending:public")) == (0, 0)
    await eventually(lambda: stack.redis.exists(keys.LEASES) == 0, what="the end of all leases")
