"""A rolling upgrade under compose, as docs/DEPLOYMENT.md says, under load and through the edge.

From the newest release that has left a store in tests/stores/, whose commit is taken from git, or from the commit in
UPGRADE_FROM, to this working tree. Takes minutes: `make test-deploy` runs it, and prints the figures.
"""

import asyncio
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.archives import make_zip
from tests.support.deploy.compose import BAG, Compose, caddy_image, docker, reason_to_skip
from tests.support.processes import ROOT
from tests.support.stack import PNG
from tests.support.waiting import wait_until

_REASON = reason_to_skip()
pytestmark = [pytest.mark.deploy, pytest.mark.skipif(bool(_REASON), reason=f"no Docker engine: {_REASON}")]

REFUSED_MAX = 0.001  # of all requests, but while Redis or the edge are replaced: for seconds nobody listens
REFUSING_SECONDS_MAX = 60
CLIENTS = 8
PAUSE_SECONDS = 0.02  # of a client between two submits
STEP_SECONDS = 5  # of load before, between and after the steps
ZIP_EVERY = 50
HEADING = "### Upgrading"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier release."""
    folder = tmp_path_factory.mktemp("before")
    newest = max(path.name for path in (ROOT / "tests/stores").iterdir())
    added = _git("log", "--diff-filter=A", "--format=%H", "--max-count=1", "--", f"tests/stores/{newest}")
    commit = os.environ.get("UPGRADE_FROM") or added.decode().strip()
    print(f"from {commit[:7]}")
    subprocess.run(
        ["tar", "--extract", "--directory", folder], input=_git("-c", "tar.umask=0022", "archive", commit), check=True
    )
    return folder


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture
def compose(before: Path, tmp_path: Path) -> Iterator[Compose]:
    """The earlier release, running."""
    compose = Compose(("--profile", "tls"), TAG="upgrade")
    earlier = ("--file", str(before / "docker-compose.yml"))
    try:
        with caddy_image(tmp_path):
            compose("build", files=earlier)
        compose.make_key()
        compose("up", "--detach", "--no-build", "--wait", files=earlier)
        wait_until(compose.first_result, seconds=120, what="the first result")
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "30", check=False)
        docker("rmi", *(f"darkroom-{name}:upgrade" for name in ("api", "worker", "redis", "edge")), check=False)


def steps() -> list[str]:
    """The commands of the page."""
    page = (ROOT / "docs/DEPLOYMENT.md").read_text()
    block = page.partition(HEADING)[2].partition("```sh")[2].partition("```")[0]
    return re.findall(r"docker compose (.+?)(?: +#.*)?$", block, re.MULTILINE)


class Load:
    """Single images and archives by several clients; a request that is not accepted is not repeated."""

    def __init__(self) -> None:
        self.stopping = False
        self.accepted = list[str]()
        self.step = "before"
        self.refused = Counter[tuple[str, str]]()
        """By step and reason."""
        self.refused_at = list[float]()
        self.slowest_seconds = 0.0

    def refuse(self, reason: str) -> None:
        self.refused[self.step, reason] += 1
        self.refused_at.append(time.monotonic())

    async def run(self, client: httpx.AsyncClient) -> None:
        archive = make_zip({f"{at}.png": BAG for at in range(30)})
        number = 0
        while not self.stopping:
            number += 1
            content, kind = (archive, {"Content-Type": "application/zip"}) if number % ZIP_EVERY == 0 else (BAG, PNG)
            began = time.monotonic()
            try:
                answer = await client.post("/v1/jobs", content=content, headers=kind)
            except httpx.TransportError as error:
                self.refuse(type(error).__name__)
            else:
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["id"])
                else:
                    self.refuse(f"{answer.status_code} {answer.json().get('code')}")
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            await asyncio.sleep(PAUSE_SECONDS)


async def ended_as_they_should(client: httpx.AsyncClient, job_ids: list[str]) -> int:
    """How many images these jobs had; each is a bag, in a result of its own."""

    async def images_of(some: list[str]) -> int:
        images = 0
        for job_id in some:
            job = (await client.get(f"/v1/jobs/{job_id}?wait=30")).json()
            assert job["status"] == "completed", job
            items = (await client.get(f"/v1/jobs/{job_id}/results")).json()["items"]
            assert [(it["index"], it["class"]) for it in items] == [(at, "Bag") for at in range(job["counts"]["total"])]
            images += len(items)
        return images

    return sum(await asyncio.gather(*(images_of(job_ids[at::CLIENTS]) for at in range(CLIENTS))))


async def job_ids(client: httpx.AsyncClient) -> set[str]:
    """Of all jobs of this key."""
    found, cursor = set[str](), ""
    while True:
        page = (await client.get("/v1/jobs", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))).json()
        found |= {job["id"] for job in page["jobs"]}
        cursor = page.get("next_cursor")
        if not cursor:
            return found


def redis_and_edge(compose: Compose) -> list[str]:
    """The containers of Redis and of the edge."""
    return [it["Id"] for service in ("redis", "edge") for it in compose.containers(service)]


async def test_nothing_is_lost_and_almost_nothing_refused(compose: Compose, tmp_path: Path) -> None:
    assert len(steps()) >= 4
    load, kept = Load(), redis_and_edge(compose)
    async with compose.async_edge_client(tmp_path) as client:
        known = await job_ids(client)
        running = [asyncio.create_task(load.run(client)) for _ in range(CLIENTS)]
        with caddy_image(tmp_path):
            for step in steps():
                await asyncio.sleep(STEP_SECONDS)
                load.step = step
                accepted, began = len(load.accepted), time.monotonic()
                await asyncio.to_thread(compose, *step.split())
                said = f"{time.monotonic() - began:.0f} s, {len(load.accepted) - accepted} jobs accepted meanwhile"
                print(f"docker compose {step}: {said}")
        await asyncio.sleep(STEP_SECONDS)
        load.stopping = True
        await asyncio.gather(*running)
        images = await ended_as_they_should(client, load.accepted)
        made = await job_ids(client) - known
    total = len(load.accepted) + load.refused.total()
    print(f"{total} requests, refused: {dict(load.refused)}; {images} images; slowest: {load.slowest_seconds:.1f} s")
    assert total > 1000
    seconds = max(load.refused_at, default=0) - min(load.refused_at, default=0)
    print(f"refused for {seconds:.1f} s")
    assert seconds < REFUSING_SECONDS_MAX
    *_, last = steps()
    exempt = last if redis_and_edge(compose) != kept else None
    assert sum(count for (step, _), count in load.refused.items() if step != exempt) / total < REFUSED_MAX
    assert len(made - {*load.accepted}) <= load.refused.total(), "a job that nobody was told of"
    assert made >= {*load.accepted}
    for service in ("api", "worker", "outbound"):
        (container,) = compose.containers(service)
        image = docker("image", "inspect", "--format", "{{.Id}}", container["Config"]["Image"]).stdout.strip()
        assert container["Image"] == image, f"{service} is of the new release"
