"""Upgrades behind the edge, under load: `docker compose`, step by step as `darkroom-host upgrade` does it on EC2.

    .venv/bin/python -m bench.edge.upgrade

Every container of workers and API is replaced, three times each for requests that are sent once, and for clients that
repeat what failed with the same Idempotency-Key. Needs a Docker engine; about three minutes.
"""

import asyncio
import ssl
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.edge.restart_load import failures, repeats, row
from tests.support.deploy.compose import Compose, caddy_image
from tests.support.waiting import wait_until

UPGRADES = 3
PAUSE_SECONDS = 3


async def _upgrades(compose: Compose) -> None:
    for _ in range(UPGRADES):
        await asyncio.sleep(PAUSE_SECONDS)
        for services in (("worker", "outbound"), ("api",)):
            step = ("up", "--detach", "--no-deps", "--force-recreate", "--no-build", "--wait", *services)
            await asyncio.to_thread(compose, *step)
    await asyncio.sleep(PAUSE_SECONDS)


def _accepted(compose: Compose) -> int:
    return int(compose("exec", "--no-TTY", "redis", "redis-admin", "hget", "stats", "accepted").stdout)


def main() -> None:
    compose = Compose()
    with TemporaryDirectory() as folder, caddy_image(Path(folder)):
        try:
            compose("build")
            compose.make_key()
            compose("up", "--detach")
            wait_until(compose.first_result, seconds=120, what="the first result")
            authority = "edge:/var/lib/darkroom/caddy/pki/authorities/local/root.crt"
            compose("cp", authority, folder)
            tls = ssl.create_default_context(cafile=str(Path(folder) / "root.crt"))
            url = f"https://localhost:{compose.edge_port}"
            print(f"| {UPGRADES} upgrades behind the edge | requests | failed | share |\n|---|---|---|---|")
            print(f"| sent once | {row(asyncio.run(failures(_upgrades(compose), url, tls, compose.headers)))} |")
            before = _accepted(compose)
            submits, repeated, job_ids = asyncio.run(repeats(_upgrades(compose), url, tls, compose.headers))
            made = _accepted(compose) - before
            print(f"| with Idempotency-Key | {submits} submits, {repeated} repeated | {made} jobs made | |")
        finally:
            compose("down", "--volumes", "--timeout", "30", check=False)
    if not made == submits == len(job_ids):
        sys.exit("jobs were lost or doubled")


if __name__ == "__main__":
    main()
