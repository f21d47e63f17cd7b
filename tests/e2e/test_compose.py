"""`docker compose up` with a real Docker engine; skipped if there is none."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import httpx
import pytest

from tests.support.archives import make_zip
from tests.support.pictures import samples
from tests.support.processes import ROOT, free_port
from tests.support.stack import PNG, load_client, results_of, submit_all
from tests.support.waiting import eventually, wait_until

BAG = samples()["0018-bag.png"]
PASSWORD = "p@ss/w#rd:1 \"x'y$z\\%41+="  # characters that a password generator may use


def docker(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=check,
    )


def reason_to_skip() -> str:
    """Empty if an engine responds and compose v2 is installed."""
    try:
        for probe in (["info"], ["compose", "version"]):
            if (done := docker(*probe, check=False)).returncode:
                return f"`docker {' '.join(probe)}`: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    except FileNotFoundError:
        return "the docker command is not installed"
    return ""


_REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no Docker engine to run compose with: {_REASON}")


class Compose:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds_to_first_result = 0.0
        self._project = f"darkroom-test-{os.getpid()}"
        self._environment = {"PORT": str(self.port), "REDIS_PASSWORD": PASSWORD}

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("compose", "--project-name", self._project, *arguments, check=check, **self._environment)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """The output of `docker inspect` for each container of a service."""
        ids = self("ps", "--all", "--quiet", service).stdout.split()
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *ids).stdout)
        return inspected

    def first_result(self) -> dict[str, Any] | None:
        """The result for an image of a bag, or None while the stack is not ready."""
        try:
            answer = httpx.post(f"{self.url}/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=5"}, timeout=40)
        except httpx.TransportError:
            return None
        result: dict[str, Any] | None = answer.json().get("result") if answer.status_code == 200 else None
        return result


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """The stack, one container of each service."""
    compose = Compose()
    compose("build")
    started = time.monotonic()
    try:
        compose("up", "--detach")
        result = wait_until(compose.first_result, seconds=120, what="the first result")
        compose.seconds_to_first_result = time.monotonic() - started
        assert result["class"] == "Bag"
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "30", check=False)


def is_healthy(compose: Compose, service: str) -> bool:
    (container,) = compose.containers(service)
    return bool(container["State"]["Health"]["Status"] == "healthy")


def test_the_stack_comes_up_and_classifies(compose: Compose) -> None:
    print(f"from `docker compose up` to the first result: {compose.seconds_to_first_result:.1f} s")
    for service in ("redis", "api", "worker", "outbound"):
        wait_until(partial(is_healthy, compose, service), seconds=60, what=f"a healthy {service}")
    answer = httpx.post(f"{compose.url}/predict", files={"file": BAG}, timeout=20)
    assert answer.json()["class"] == "Bag"


@pytest.mark.parametrize("service", ["redis", "api", "worker", "outbound"])
def test_a_container_can_do_no_more_than_it_must(compose: Compose, service: str) -> None:
    (container,) = compose.containers(service)
    host, config = container["HostConfig"], container["Config"]
    assert config["User"] not in ("", "0", "root")
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    published = {port for port, bound in container["NetworkSettings"]["Ports"].items() if bound}
    assert published == ({"5000/tcp"} if service == "api" else set())
    assert compose("exec", service, "id", "-u").stdout.strip() != "0"
    assert compose("exec", service, "touch", "/srv-or-root", check=False).returncode != 0


def test_redis_is_durable_and_has_a_password(compose: Compose) -> None:
    names = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
    shell = 'REDISCLI_AUTH=$REDIS_PASSWORD redis-cli config get "$0"'
    values = {name: compose("exec", "redis", "sh", "-c", shell, name).stdout.split()[1] for name in names}
    assert values == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(1 << 30),
    }
    assert "NOAUTH" in compose("exec", "redis", "redis-cli", "ping", check=False).stdout
    (container,) = compose.containers("redis")
    assert container["HostConfig"]["Memory"] >= 2 * (1 << 30) + (256 << 20)


def test_a_worker_that_ends_is_started_again(compose: Compose) -> None:
    (before,) = compose.containers("worker")
    compose("exec", "--no-TTY", "worker", "python3", "-c", "import os; os.kill(1, 15)")
    wait_until(
        lambda: compose.containers("worker")[0]["RestartCount"] > before["RestartCount"],
        seconds=90,
        what="another start of the worker",
    )
    wait_until(compose.first_result, seconds=60, what="a result")


@pytest.mark.parametrize("module", ["torch", "cv2", "PIL", "numpy", "celery"])
def test_the_api_image_cannot_import_what_is_the_workers(compose: Compose, module: str) -> None:
    done = compose("exec", "api", "python3", "-c", f"import {module}", check=False)
    assert f"No module named '{module}'" in done.stderr


def test_an_archive_larger_than_its_spool_is_classified(compose: Compose) -> None:
    """A zip of 12 MiB is spooled to disk; /tmp would be memory."""
    data = make_zip({f"{n:03}.png": BAG + bytes(64_000) for n in range(190)})
    headers = {"Content-Type": "application/zip"}
    path = httpx.post(f"{compose.url}/v1/jobs", content=data, headers=headers, timeout=30).headers["Location"]
    assert httpx.get(f"{compose.url}{path}?wait=30", timeout=40).json()["counts"]["succeeded"] == 190
    assert compose("exec", "api", "sh", "-c", "df -P $TMPDIR | tail -1").stdout.split()[0] not in ("tmpfs", "shm")
    rows = httpx.get(f"{compose.url}{path}/results?format=csv", timeout=30).text.splitlines()
    assert len(rows) == 191


def test_outbound_workers_fetch_from_addresses_that_they_may(compose: Compose) -> None:
    urls = {"urls": ["http://redis:6379/", "http://169.254.169.254/latest/meta-data/"]}
    path = httpx.post(f"{compose.url}/v1/jobs", json=urls, timeout=30).headers["Location"]
    assert httpx.get(f"{compose.url}{path}?wait=30", timeout=40).json()["status"] == "failed"
    items = httpx.get(f"{compose.url}{path}/results", timeout=30).json()["items"]
    assert [item["error"]["code"] for item in items] == ["forbidden_address"] * 2


async def test_stop_in_the_middle_of_a_load_and_up_lose_nothing(compose: Compose) -> None:
    accepted = list[str]()

    async def submit_until_it_stops() -> None:
        async with load_client(compose.url) as client:
            while True:
                try:
                    async with client.post("/v1/jobs", data=BAG, headers=PNG) as answer:
                        assert answer.status == 202, await answer.text()
                        accepted.append((await answer.json())["id"])
                except aiohttp.ClientError:
                    return

    loads = [asyncio.create_task(submit_until_it_stops()) for _ in range(8)]
    await eventually(lambda: len(accepted) > 200, what="a load")
    await asyncio.to_thread(compose, "stop")
    await asyncio.gather(*loads)
    exits = {s: [c["State"]["ExitCode"] for c in compose.containers(s)] for s in ("redis", "api", "outbound", "worker")}
    assert exits == {"redis": [0], "api": [0], "outbound": [0], "worker": [0]}, (
        "every process stopped before it was killed"
    )

    compose("up", "--detach", "--scale", "worker=1")
    wait_until(compose.first_result, seconds=120, what="the first result")
    assert {result["class"] for result in await results_of(compose.url, accepted)} == {"Bag"}


async def test_three_workers_share_the_work_and_one_may_be_killed(compose: Compose) -> None:
    compose("up", "--detach", "--no-recreate", "--scale", "worker=3")

    def workers() -> int:
        (model,) = httpx.get(f"{compose.url}/v1/models/fmnist-cnn").json()["models"]
        return int(model["serving"]["workers"])

    wait_until(lambda: workers() == 3, seconds=60, what="three workers")
    images = list(samples().values()) * 20
    submitting = asyncio.create_task(submit_all(compose.url, images))
    container = compose.containers("worker")[0]["Id"]
    await asyncio.to_thread(docker, "kill", "--signal", "KILL", container)
    results = await results_of(compose.url, await submitting)
    assert {result["status"] for result in results} == {"succeeded"}
    assert [result["class"] for result in results[:30]] == [result["class"] for result in results[570:]]


def test_the_layers_above_the_base_image_are_small(compose: Compose) -> None:
    base = json.loads(docker("image", "inspect", "python:3.11-slim-bookworm").stdout)[0]["Size"]
    sizes = {
        name: json.loads(docker("image", "inspect", name).stdout)[0]["Size"] - base
        for name in ("darkroom-api", "darkroom-worker")
    }
    print({name: f"{size / 1e6:.0f} MB" for name, size in sizes.items()})
    assert sizes["darkroom-api"] < 60e6
    assert sizes["darkroom-worker"] < 1000e6
