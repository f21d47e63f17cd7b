"""`--json` of every command: the API's own objects, with what this client does not know."""

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web
from darkroom.cli.commands import cli

from tests.support.web import Site, serving_site
from tests.unit.client.answers import ITEM, JOB, JOB_ID, SERVER, answer, by_method, lines, run_command
from tests.unit.client.test_doctor import MODEL, serve_well

PICTURES = ["tests/data/0018-bag.png"] * 3
ITEMS = [{"index": index, "name": PICTURES[index], **ITEM, "a new field": 1} for index in range(3)]
WEBHOOK = {"state": "none", "url": None, "attempts": [], "a new field": 1}
NEW_MODEL = MODEL | {"a new field": 1}
COMMANDS: dict[str, tuple[list[str], list[Any]]] = {
    "classify": (PICTURES, ITEMS),
    "submit": (PICTURES, [JOB]),
    "jobs": ([], [[JOB]]),
    "job": ([JOB_ID], [JOB | {"webhook": WEBHOOK}]),
    "watch": ([JOB_ID], [JOB]),
    "results": ([JOB_ID], ITEMS),
    "cancel": ([JOB_ID], [JOB]),
    "retry": ([JOB_ID], [JOB]),
    "delete": ([JOB_ID], [JOB]),
    "models": ([], [[NEW_MODEL]]),
    "status": ([], [SERVER]),
}


async def no_content(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def results(request: web.Request) -> web.StreamResponse:
    left = ITEMS[int(request.query.get("from", "0")) :]
    return await lines(*(json.dumps(it) + "\n" for it in left))(request)


def serve(site: Site) -> None:
    job = f"/v1/jobs/{JOB_ID}"
    serve_well(site)
    site.at("/v1/server", answer(SERVER))
    site.at("/v1/models", answer({"models": [NEW_MODEL]}))
    site.at("/v1/jobs", by_method(GET=answer({"jobs": [JOB], "next_cursor": None}), POST=answer(JOB)))
    site.at(job, by_method(GET=answer(JOB), DELETE=no_content))
    for path in ("/cancel", "/retry"):
        site.at(job + path, answer(JOB))
    site.at(f"{job}/webhook", answer(WEBHOOK))
    site.at(f"{job}/events", lines(f"event: end\ndata: {json.dumps(JOB)}\n\n", kind="text/event-stream"))
    site.at(f"{job}/results", results)


async def test_each_command_prints_the_apis_own_objects(tmp_path: Path) -> None:
    assert {*COMMANDS, "doctor"} == set(cli.commands), "doctor has objects of its own, and a test beside its checks"
    async with serving_site() as site:
        serve(site)
        runs = (
            run_command(site, tmp_path / name, name, *arguments, "--json") for name, (arguments, _) in COMMANDS.items()
        )
        found = await asyncio.gather(*runs)
    for (name, (_, expected)), (code, out, errors) in zip(COMMANDS.items(), found, strict=True):
        assert code == 0, (name, errors)
        assert [json.loads(line) for line in out.splitlines()] == expected, name
