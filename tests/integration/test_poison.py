"""Images that kill whoever looks at them: each is tried three times at most, fails alone, and can be sent again."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobs.store import keys
from tests.support.pictures import LIMITS, samples
from tests.support.poison_worker import marked, one_shade
from tests.support.processes import ROOT, Worker
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
    "PYTHONPATH": str(ROOT),
}


class PoisonWorker(Worker):
    def __init__(self, redis_url: str, folder: Path, **settings: str) -> None:
        self.touched = folder / "touched"
        self.touched.touch()
        super().__init__(redis_url, folder / "poison.log", POISON_LOG=str(self.touched), **settings)
        self.arguments = [sys.executable, str(SCRIPT)]

    def tries(self) -> int:
        return len(self.touched.read_text().splitlines())


def classes_of(images: list[bytes]) -> list[str]:
    """What the model says of them, called in this process."""
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    outcomes = classifier.classify(images, [1] * len(images))
    return [classifier.card.classes[outcome[0].class_index] for outcome in outcomes if isinstance(outcome, list)]


async def submit_form(client: aiohttp.ClientSession, images: list[bytes]) -> dict[str, Any]:
    form = aiohttp.FormData()
    for number, image in enumerate(images):
        form.add_field("files", image, filename=f"{number}.png")
    async with client.post("/v1/jobs", data=form) as answer:
        assert answer.status == 202, await answer.text()
        job: dict[str, Any] = await answer.json()
        return job


async def items_of(client: aiohttp.ClientSession, job: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    """The items of a job, once it has ended."""
    async with asyncio.timeout(180):
        while True:
            async with client.get(f"{job['links']['self']}?wait=20") as answer:
                if (await answer.json())["status"] not in ("queued", "running"):
                    break
    async with client.get(f"{job['links']['results']}?limit=1000{query}") as answer:
        items: list[dict[str, Any]] = (await answer.json())["items"]
        return items


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
        # All of it waits when the worker comes, so that the poison shares its batch with all others.
        job = await submit_form(client, upload)
        singles = []
        for image in healthy[:10]:
            async with client.post("/v1/jobs", data=image, headers=PNG) as answer:
                singles.append(await answer.json())
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

            async with client.post(f"{job['links']['self']}/retry") as answer:
                again = await answer.json()
                assert (answer.status, again["counts"]["total"]) == (202, 1)
            (item,) = await items_of(client, again)
            assert (item["name"], item["error"]["code"]) == ("20.png", code)
            assert worker.tries() == 2 * tries
            assert worker.running()
    assert stack.stat("transitions") == len(upload) + len(singles) + 1
    assert (stack.stat("uploads"), stack.stat("pending:public")) == (0, 0)
    await eventually(lambda: stack.redis.exists(keys.LEASES) == 0, what="the end of all leases")
