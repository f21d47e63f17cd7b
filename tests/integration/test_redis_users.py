"""The users of deploy/redis/users.conf may do what the API and the workers do, on every path, and not more."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.exceptions
from redis import Redis

from jobs.store import keys
from jobs.store.store_figures import STORE_UP
from tests.support.archives import make_tar
from tests.support.metrics import scraped, value
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Api, Process, Worker, free_port
from tests.support.stack import PNG, Stack
from tests.support.waiting import eventually, wait_until
from tests.support.web import serving_site

USERS = ROOT / "deploy/redis/users.conf"
PASSWORD = "p@ss/w#rd:1"
SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()


@pytest.fixture
def urls(stack: Stack) -> dict[str, str]:
    """For each user, the URL by which it connects."""
    found = {}
    for line in USERS.read_text().splitlines():
        if line.startswith(("user api ", "user worker ")):
            _, name, *rules = shlex.split(line)
            rules = [f">{PASSWORD}" if rule.endswith("_HASH") else rule for rule in rules]
            stack.redis.execute_command("ACL", "SETUSER", name, "reset", *rules)  # type: ignore[no-untyped-call]
            found[name] = f"unix://{name}:{PASSWORD.replace('/', '%2F').replace('#', '%23')}@{stack.valkey.socket}?db=0"
    return found


def refused(stack: Stack) -> list[tuple[bytes, bytes]]:
    """What Redis has refused so far: user and command or key."""
    log = stack.redis.execute_command("ACL", "LOG", 100)  # type: ignore[no-untyped-call]
    return [(entry["username"], entry["object"]) for entry in log]


def make_key(url: str) -> str:
    command = [sys.executable, "-m", "api.admin", "keys", "create", "alice", "--items-per-day", "100000"]
    environment = {**os.environ, "REDIS_URL": url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


async def test_every_path_of_a_job_is_allowed(stack: Stack, urls: dict[str, str], shirt: bytes, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    settings = {
        "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
        "UPLOADS_URL": f"file://{tmp_path / 'uploads'}",
        "WEBHOOK_SECRETS": json.dumps({"alice": SECRET}),
        "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
        "RESULT_TTL_SECONDS": "3",
        "MIN_RESULT_TTL_SECONDS": "1",
    }
    headers = {"Authorization": f"Bearer {make_key(urls['api'])}"}
    outbound = [sys.executable, "-m", "worker.outbound"]
    ports = [free_port(), free_port()]
    with ExitStack() as started:
        worker_settings = settings | {"METRICS_PORT": str(ports[0])}
        started.enter_context(Worker(urls["worker"], tmp_path / "worker.log", **worker_settings))
        started.enter_context(Process(outbound, tmp_path / "outbound.log", settings | {"REDIS_URL": urls["worker"]}))
        api = started.enter_context(Api(urls["api"], tmp_path / "api.log", **settings, METRICS_PORT=str(ports[1])))
        async with serving_site() as site, httpx.AsyncClient(base_url=api.url, headers=headers, timeout=60) as client:
            hook, image = site.responds("/hook"), site.responds("/shirt.png", body=shirt)
            tar = make_tar({f"{n}.png": shirt for n in range(200)} | {"large.png": shirt + bytes(100_000)})
            archive = {"Content-Type": "application/x-tar"}

            async def ended(job: dict[str, Any]) -> dict[str, Any]:
                return dict((await client.get(f"{job['links']['self']}?wait=30")).json())

            single = await client.post("/v1/jobs", content=shirt, headers=PNG | {"Prefer": "wait=30"})
            assert single.json()["result"]["class"] == "Shirt"

            opened = (await client.post(f"/v1/jobs?open=true&webhook_url={hook}")).json()
            for _ in range(2):
                part = archive | {"Idempotency-Key": "part"}
                assert (await client.post(f"{opened['links']['self']}/items", content=tar, headers=part)).is_success
            assert (await client.post(f"{opened['links']['self']}/seal")).is_success
            events = await client.get(opened["links"]["events"])
            assert '"status":"completed"' in events.text
            assert (await ended(opened))["counts"]["succeeded"] == 201
            await eventually(lambda: site.requested("/hook"), what="the webhook")

            by_url = (await client.post("/v1/jobs", json={"urls": [image, f"{site.url}/absent.png"]})).json()
            assert (await ended(by_url))["status"] == "completed"
            assert (await client.post(f"{by_url['links']['self']}/retry")).status_code in (202, 409)

            canceled = (await client.post("/v1/jobs?lane=bulk", content=tar, headers=archive)).json()
            assert (await client.post(f"{canceled['links']['self']}/cancel")).is_success
            assert (await client.delete(canceled["links"]["self"])).status_code == 204
            assert (await client.get("/v1/jobs")).json()["jobs"]
            assert (await client.get("/v1/server")).json()["workers"] == 1
            assert (await client.get("/v1/models")).json()["models"]
            assert [value(await asyncio.to_thread(scraped, port), STORE_UP) for port in ports] == [1, 1]
            await eventually(lambda: not stack.redis.keys(keys.JOB + "*"), what="the expiry of all jobs")
            await asyncio.to_thread(wait_until, lambda: not stack.redis.keys(keys.UPLOAD + "*"), what="no uploads")
    assert refused(stack) == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *((user, command) for user in ("api", "worker")
          for command in ("CONFIG SET maxmemory 0", "FLUSHALL", "FLUSHDB", "EVAL return(1) 0", "KEYS *", "ACL LIST",
                          "SHUTDOWN", "REPLICAOF a 1", "MODULE LIST", "SCRIPT FLUSH", "CLIENT KILL a:1",
                          "MONITOR", "SAVE", "GET of_others", "PUBLISH of_others 1")),
        ("worker", "GET secret"),
        ("worker", "SET secret 1"),
        ("worker", "HGETALL apikeys"),
        ("worker", "DEL apikeys"),
        ("worker", "INCR day:a:1"),
    ],
)  # fmt: skip
def test_nothing_else_is(stack: Stack, urls: dict[str, str], user: str, command: str) -> None:
    with Redis.from_url(urls[user]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("service", "user", "change", "missing"),
    [
        ("api", "api", "-subscribe", "SUBSCRIBE"),
        ("worker", "worker", "-multi", "MULTI"),
        ("worker.outbound", "worker", "-exec", "EXEC"),
    ],
)
def test_a_service_whose_user_lacks_a_right_stops_with_one_line(
    stack: Stack, urls: dict[str, str], tmp_path: Path, service: str, user: str, change: str, missing: str
) -> None:
    """All rights, one by one: tests/integration/jobs/store/test_server_check.py."""
    stack.redis.execute_command("ACL", "SETUSER", user, change)  # type: ignore[no-untyped-call]
    environment = {"REDIS_URL": urls[user], "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "MODEL": "fmnist-mlp"}
    with Process([sys.executable, "-m", service], tmp_path / "log", environment) as process:
        assert process.wait(60) == 1
        (line,) = process.output().splitlines()
    start = f"darkroom {service.rpartition('.')[2]}: REDIS_URL: the server does not allow its user {missing}: "
    assert line.startswith(start)


def test_a_script_has_no_more_rights_than_its_caller(stack: Stack, urls: dict[str, str]) -> None:
    with Redis.from_url(urls["worker"]) as client:
        sha1 = client.script_load("#!lua\nreturn redis.call('GET', 'secret')")
        with pytest.raises(redis.exceptions.ResponseError, match="permission"):
            client.evalsha(sha1, 0)  # type: ignore[no-untyped-call]
