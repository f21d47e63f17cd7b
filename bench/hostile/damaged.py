"""A hundred thousand damaged uploads against real processes: no 500, no process exits, and no process grows.

    .venv/bin/python -m bench.hostile.damaged [--uploads 100000]

Uploads are valid ones that were damaged (tests/support/hostile.py), from a seed. Prints the responses, and the memory
of the API and of each of the worker's processes after a tenth of the uploads and at the end.
"""

import argparse
import asyncio
import sys
from collections import Counter
from random import Random
from typing import Any

import aiohttp

from bench.services import Darkroom, darkroom
from jobs.store import keys
from tests.support.hostile import kinds, upload

IN_FLIGHT = 16
SETTINGS = {"RESULT_TTL_SECONDS": "20", "MIN_RESULT_TTL_SECONDS": "20", "UPLOAD_BYTES_MAX": str(16 << 20)}


async def send(url: str, seeds: range, responses: Counter[str]) -> None:
    todo = iter(seeds)
    names = sorted(kinds())

    async def client(http: aiohttp.ClientSession) -> None:
        for seed in todo:
            random = Random(seed)
            damaged = upload(random, random.choice(names))
            headers = {"Content-Type": damaged.content_type}
            async with http.post(damaged.path, data=bytes(damaged.body), headers=headers) as response:
                body: Any = await response.json(content_type=None)
            responses[f"{response.status} {body.get('code', '') if isinstance(body, dict) else ''}".strip()] += 1

    async with aiohttp.ClientSession(url) as http:
        await asyncio.gather(*(client(http) for _ in range(IN_FLIGHT)))


async def ended(service: Darkroom) -> None:
    """Wait until the worker has finished all images; images by reference are not fetched here."""
    waiting = [f"{keys.ROTATION}fmnist-mlp:{lane}" for lane in "ib"]
    async with asyncio.timeout(120):
        while service.stack.redis.exists(*waiting, keys.LEASES):
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=100_000)
    uploads = parser.parse_args().uploads
    responses = Counter[str]()
    with darkroom(SETTINGS) as service:
        memory = [service.servers.resident_bytes()]
        tenth = uploads // 10
        for seeds in (range(tenth), range(tenth, uploads)):
            asyncio.run(send(service.url, seeds, responses))
            asyncio.run(ended(service))
            memory.append(service.servers.resident_bytes())
    start, early, late = memory
    alive = start.keys() == late.keys()
    print(f"{responses.total()} uploads: {dict(responses.most_common())}")
    print(f"the same processes as at the start: {alive}")
    for name in early.keys() & late.keys():
        print(f"{name}: {late[name] >> 20} MiB, {late[name] / early[name]:.2f} of that after {tenth}")
    failed = not alive or any(response.startswith("500") for response in responses)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
