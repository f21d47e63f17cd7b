"""URLs by the client and the command, fetched by a real outbound worker."""

import asyncio
import sys
from pathlib import Path

from darkroom import AsyncDarkroom

from tests.integration.client.conftest import DATA, KEY, command_environment, command_line
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
    }
    return Process([sys.executable, "-m", "worker.outbound"], folder / "outbound.log", environment)


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
            running = await asyncio.create_subprocess_exec(
                *command_line("classify", "--urls", tmp_path / "urls.txt", "--format", "csv"),
                env=command_environment(tmp_path, api.url),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, errors = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, errors
    rows = [row.split(",") for row in out.decode().splitlines()[1:]]
    assert [(row[1].strip('"'), row[3].strip('"')) for row in rows] == [(url, "Bag") for url in lines]


def listed(site: Site) -> list[str]:
    return [site.responds(f"/{number}.png", body=BAG) for number in range(3)]
