"""Models that are slower than a slice of bulk work, than a lease, and than the time limit of a task."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from jobs.store import keys
from jobs.store.job_hash import chunk_field
from tests.support.packages import classified, package
from tests.support.processes import ROOT, Api, Worker
from tests.support.slow_worker import SLOW_MODELS
from tests.support.stack import Stack

LEASE = {"LEASE_SECONDS": "0.8", "RENEW_SECONDS": "0.2", "REAP_SECONDS": "0.3"}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for ref in ("slow", "fast"):
        package(tmp_path / "weights", ref)
    return tmp_path / "weights"


@pytest.fixture
def api(stack: Stack, packages: Path) -> Api:
    return stack.api(DEFAULT_MODEL="slow", MODELS_DIR=str(packages))


def slow_worker(stack: Stack, packages: Path, tmp_path: Path, seconds: float, **settings: str) -> Worker:
    settings |= {"MODELS": "slow,fast", "MODELS_DIR": str(packages), SLOW_MODELS: json.dumps({"slow": seconds})}
    settings["PYTHONPATH"] = str(ROOT)
    worker = Worker(stack.valkey.url, tmp_path / "slow.log", children=2, **settings)
    worker.arguments = [sys.executable, str(ROOT / "tests/support/slow_worker.py")]
    return worker


async def submit(client: aiohttp.ClientSession, images: list[bytes], query: str) -> dict[str, Any]:
    form = aiohttp.FormData()
    for number, image in enumerate(images):
        form.add_field("files", image, filename=f"{number}.png")
    async with client.post(f"/v1/jobs?model=slow{query}", data=form) as response:
        assert response.status == 202, await response.text()
        job: dict[str, Any] = await response.json()
        return job


async def ended(client: aiohttp.ClientSession, job: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while job["status"] in ("queued", "running"):
            async with client.get(f"{job['links']['self']}?wait=20") as response:
                job = await response.json()
    return job


def batches(api: Api) -> dict[str, int]:
    models = httpx.get(f"{api.url}/v1/models").json()["models"]
    return {model["name"]: model["paces"][0]["batch"] for model in models if model["paces"]}


def failure_counts(stack: Stack) -> list[bytes]:
    """Of the first chunks of all jobs."""
    jobs = stack.redis.keys(keys.JOB + "*")
    return [found for job in jobs if (found := stack.redis.hget(job, chunk_field("failure_counts", 0))) is not None]


async def test_images_slower_than_a_slice_and_a_lease_are_classified_without_a_loss(
    stack: Stack, api: Api, packages: Path, tmp_path: Path, shirt: bytes
) -> None:
    with slow_worker(stack, packages, tmp_path, 0.6, **LEASE):
        async with aiohttp.ClientSession(api.url) as client:
            bulk = await submit(client, [shirt] * 4, "&lane=bulk")
            interactive = await submit(client, [shirt] * 4, "")
            for job in (bulk, interactive):
                assert (await ended(client, job))["counts"]["succeeded"] == 4
        assert batches(api)["slow"] == 1
    assert failure_counts(stack) == []
    assert stack.redis.exists(keys.LEASES, keys.SUSPECTS + "slow") == 0


async def test_an_image_slower_than_the_time_limit_fails_alone(
    stack: Stack, api: Api, packages: Path, tmp_path: Path, shirt: bytes
) -> None:
    limits = {"TASK_TIME_LIMIT_SECONDS": "1.5", "CRASH_TRIES_MAX": "1"}
    with slow_worker(stack, packages, tmp_path, 2.5, **LEASE, **limits):
        async with aiohttp.ClientSession(api.url) as client:
            job = await ended(client, await submit(client, [shirt], ""))
            assert job["result"]["error"]["code"] == "timeout"
        assert classified(api, shirt, "fast", seconds=30)["status"] == "completed"


async def test_a_fast_model_does_not_wait_for_what_waits_for_a_slow_one(
    stack: Stack, api: Api, packages: Path, tmp_path: Path, shirt: bytes
) -> None:
    with slow_worker(stack, packages, tmp_path, 0.3):
        async with aiohttp.ClientSession(api.url) as client:
            jobs = [await submit(client, [shirt], "") for _ in range(100)]
            assert classified(api, shirt, "fast", seconds=30)["status"] == "completed"
            async with client.get(jobs[-1]["links"]["self"]) as response:
                assert (await response.json())["status"] == "queued", "the slow ones are not done"
            for job in jobs:
                async with client.delete(job["links"]["self"]) as response:
                    assert response.status == 204
        assert batches(api)["slow"] == 1 < batches(api)["fast"]
