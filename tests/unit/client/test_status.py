"""`darkroom status` against a server whose state is known."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.support.web import serving_site

STATE = {
    "version": "0.2.0",
    "time": "2026-11-30T10:00:00.000Z",
    "default_model": "fmnist-cnn",
    "limits": {"image_bytes_max": 1, "items_max": 1, "open_job_idle_seconds": 1, "formats": ["png"]},
    "queue": {"interactive": {"images": 0, "oldest_seconds": None}, "bulk": {"images": 1200, "oldest_seconds": 7.4}},
    "images_per_second": 950.5,
    "workers": 2,
    "budgets": {"uploads": {"used_bytes": 25, "bytes_max": 100}, "records": {"used_bytes": 0, "bytes_max": 100}},
}


async def status(folder: Path, *arguments: str) -> tuple[int | None, str]:
    async with serving_site() as site:
        site.responds("/v1/server", 200, json.dumps(STATE).encode(), **{"Content-Type": "application/json"})
        running = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("darkroom")),
            *("--url", site.url, "status", *arguments),
            env=os.environ | {"XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await running.communicate()
    return running.returncode, shown.decode()


async def test_the_state_of_a_server_is_a_few_lines(tmp_path: Path) -> None:
    code, shown = await status(tmp_path)
    assert code == 0
    assert shown.splitlines()[0].endswith(": version 0.2.0, model fmnist-cnn")
    assert shown.splitlines()[1:] == [
        "workers 2, 950.5 images/s",
        "interactive: 0 images wait",
        "bulk: 1200 images wait, the oldest for 7 s",
        "uploads: 25 % of 0 MB in use",
        "records: 0 % of 0 MB in use",
    ]


async def test_the_apis_own_object_is_shown(tmp_path: Path) -> None:
    code, shown = await status(tmp_path, "--json")
    assert (code, json.loads(shown)) == (0, STATE)
