"""URLs by the client and the command, fetched by a real outbound worker."""

import asyncio
import csv
import sys
from pathlib import Path

from darkroom import AsyncDarkroom

from tests.integration.client.conftest import DATA, KEY, WEBHOOK_SECRETS, command_environment, command_line
from tests.support.processes import MAXMEMORY_BYTES, Api, Process
from tests.support.stack import Stack
from tests.support.web import Site, serving_site

BAG = (DATA / "0018-bag.png").read_bytes()


def outbound(server: Stack, folder: Path) -> Process:
    environment = {
        "REDIS_URL": server.valkey.url,
        "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
        "OUTBOUND_CHILDREN": "1",
        "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
        "WEBHOOK_SECRETS": WEBHOOK_SECRETS,
    }
    return Process([sys.executable, "-m", "worker.outbound"], folder / "outbound.log", environment)


async def run(api: Api, folder: Path, *arguments: object, code: int = 0) -> str:
    """What the command writes to stdout."""
    running = await asyncio.create_subprocess_exec(
        *command_line(*arguments),
        env=command_environment(folder, api.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == code, errors
    return out.decode()


async def test_urls_and_files_are_one_job_in_order(server: Stack, api: Api, tmp_path: Path) -> None:
    async with serving_site() as site, AsyncDarkroom(api.url, KEY) as client:
        images = [site.responds(f"/{number}.png", body=BAG) for number in range(100)]
        images[50:50] = [DATA / "0018-bag.png", site.url + "/absent.png"]
        with outbound(server, tmp_path):
            items = [item async for item in client.classify_many(images)]
    assert [item.index for item in items] == list(range(102))
    assert [item.name for item in items] == [str(image) for image in images]
    found = [item.class_name or (item.error and item.error.code) for item in items]
    assert found == ["Bag"] * 51 + ["fetch_not_found"] + ["Bag"] * 50


async def test_a_list_of_urls_is_classified_by_the_command(server: Stack, api: Api, tmp_path: Path) -> None:
    async with serving_site() as site:
        lines = listed(site)
        (tmp_path / "urls.txt").write_text("\ufeff" + "\r\n".join(lines))  # as Windows' editor writes it
        with outbound(server, tmp_path):
            out = await run(api, tmp_path, "classify", "--urls", tmp_path / "urls.txt", "--format", "csv")
    rows = [row.split(",") for row in out.splitlines()[1:]]
    assert [(row[1].strip('"'), row[3].strip('"')) for row in rows] == [(url, "Bag") for url in lines]


def listed(site: Site) -> list[str]:
    return [site.responds(f"/{number}.png", body=BAG) for number in range(3)]


async def test_a_webhooks_attempts_are_shown(server: Stack, api: Api, tmp_path: Path) -> None:
    async with serving_site() as site, AsyncDarkroom(api.url, KEY) as client:
        url, hook = site.responds("/tea.png", 418), site.responds("/hook")
        with outbound(server, tmp_path):
            job_id = (await run(api, tmp_path, "submit", url, "--webhook-url", hook)).strip()
            watched = await run(api, tmp_path, "watch", "last", code=1)
            assert watched.splitlines()[-1].endswith("0 succeeded, 1 failed, 0 canceled")
            job = await client.job(job_id)
            while (await job.webhook())["state"] == "pending":
                pass
        (failed,) = csv.DictReader((await run(api, tmp_path, "results", "last", "--failed")).splitlines())
        assert (failed["name"], failed["error_code"]) == (url, "fetch_failed")
        shown = (await run(api, tmp_path, "job", "last")).splitlines()
    attempts = [line.split() for line in shown[shown.index(f"webhook: delivered, {hook}") + 1 :]]
    assert attempts[0] == ["attempt", "answer", "took"]
    assert [row[1] for row in attempts[1:]] == ["200"]
