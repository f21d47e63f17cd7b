"""Ctrl-C says how to go on and until when; the same command goes on, unless it begins anew."""

import asyncio
import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.waiting import eventually
from tests.support.web import Site, forever, serving_site
from tests.unit.client.answers import JOB, JOB_ID, SERVER, answer, run_command, serve_job, start_command

BAGS = ["tests/data/0018-bag.png"] * 65
ITEMS, RESULTS = f"/v1/jobs/{JOB_ID}/items", f"/v1/jobs/{JOB_ID}/results"
LIMITS = {"open_job_idle_seconds": 1800, "results_kept_seconds": 3 * 86_400}


async def hold(_: web.Request) -> web.Response:
    await forever()
    return web.Response()


def in_words(when: datetime) -> str:
    now = datetime.now().astimezone()
    return f"{when:%H:%M}" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M}"


async def interrupted(site: Site, folder: Path, held: str, *arguments: str) -> str:
    """What the command says that gets a SIGINT when the path is requested once more."""
    before = site.requested(held)
    running = await start_command(site, folder, *arguments)
    await eventually(lambda: site.requested(held) > before or running.returncode is not None, what=held)
    running.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode == 130, errors
    return errors.decode().splitlines()[-1]


@pytest.fixture
def limits() -> dict[str, object]:
    return SERVER | {"limits": LIMITS}


async def test_an_open_job_is_gone_on_with_or_begun_anew(tmp_path: Path, limits: dict[str, object]) -> None:
    line = ("classify", *BAGS, "--format", "csv")
    async with serving_site() as site:
        serve_job(site)
        site.at("/v1/server", answer(limits))
        takes = site.handler(ITEMS)
        site.at(ITEMS, hold)
        earliest = datetime.now().astimezone() + timedelta(seconds=1800)
        said = await interrupted(site, tmp_path, ITEMS, *line)
        latest = datetime.now().astimezone() + timedelta(seconds=1800)
        ends = (f"the same command goes on until {in_words(it)}, --new begins anew" for it in (earliest, latest))
        assert said.startswith(f"darkroom: interrupted: job {JOB_ID} has 0 images; ")
        assert said.endswith(tuple(ends))

        await interrupted(site, tmp_path, ITEMS, *line, "--new")
        made = [it.headers["Idempotency-Key"] for it in site.requests if it.path == "/v1/jobs"]
        assert len(set(made)) == 2, "another job"

        site.at(ITEMS, takes)
        before = len(site.requests)
        code, out, errors = await run_command(site, tmp_path, *line)
        assert (code, len(out.splitlines())) == (0, 66), errors
        after = site.requests[before:]
        assert "/v1/jobs" not in [it.path for it in after], "it goes on with the second one"
        keys = [it.headers["Idempotency-Key"] for it in after if it.path == ITEMS]
        assert keys == [f"{made[1]}-0", f"{made[1]}-1"]


@pytest.mark.parametrize("ended", [False, True])
async def test_a_sealed_job_says_until_when_its_results_are_kept(
    tmp_path: Path, limits: dict[str, object], *, ended: bool
) -> None:
    expires = datetime.now().astimezone() + timedelta(days=2)
    async with serving_site() as site:
        serve_job(site)
        site.at("/v1/server", answer(limits))
        site.at(RESULTS, hold)
        job = JOB | {"expires_at": expires.isoformat() if ended else None}
        site.at(f"/v1/jobs/{JOB_ID}", answer(job))
        said = await interrupted(site, tmp_path, RESULTS, "classify", BAGS[0])
    expected = [in_words(expires + timedelta(seconds=it, days=0 if ended else 1)) for it in range(0, 60, 20)]
    assert any(said.endswith(f"goes on until {it}, --new begins anew") for it in expected), said


async def test_flags_arrive(tmp_path: Path) -> None:
    flags = {"model": "m@1", "top-k": "3", "lane": "bulk", "webhook-url": "https://example.com/hook"}
    async with serving_site() as site:
        serve_job(site)
        arguments = [text for name, value in flags.items() for text in (f"--{name}", value)]
        done = await run_command(site, tmp_path, "submit", "https://example.com/a.png", *arguments)
        assert (done[0], done[1].strip()) == (0, JOB_ID), done
    assert dict(site.requests[0].query) == {name.replace("-", "_"): value for name, value in flags.items()}
    assert site.bodies[0] == b'{"urls": ["https://example.com/a.png"]}'


async def test_flags_then_the_environment_then_the_config(tmp_path: Path) -> None:
    config = tmp_path / "darkroom" / "config.toml"
    config.parent.mkdir()
    config.write_text('url = "http://127.0.0.1:1"\napi_key = "key-of-the-config"\n')
    (tmp_path / "key").write_text("key-of-the-file")
    async with serving_site() as site:  # whose address is in the environment
        site.at("/v1/jobs", answer({"jobs": [], "next_cursor": None}))
        for arguments, key in (([], "key-of-the-config"), (["--api-key-file", tmp_path / "key"], "key-of-the-file")):
            assert (await run_command(site, tmp_path, "jobs", *arguments))[0] == 0
            assert site.requests[-1].headers["Authorization"] == f"Bearer {key}"
        code, shown, _ = await run_command(site, tmp_path, "--url", "http://127.0.0.1:2", "doctor")
        assert (code, "127.0.0.1:2 does not answer" in shown) == (5, True)
