"""The edge under slow clients, and while the API restarts: real processes, and the shipped Caddyfile.

    .venv/bin/python -m bench.edge [--only slow|restarts]

`slow`: what others see while 1,000 connections dribble headers or bodies, for 15 s each. `restarts`: requests that fail
while the API is stopped and started 12 times, with and without the edge; and clients that repeat what failed with the
same Idempotency-Key, whose jobs are counted. Together about four minutes.
"""

import argparse
import asyncio
import json
import re
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.edge.restart_load import BAG, PAUSE_SECONDS, REQUEST_SECONDS_MAX, failures, repeats, row
from bench.edge.slow_clients import DRIBBLES, attacked
from tests.support.deploy.edge import AUTHORIZED, KEY, Edge
from tests.support.processes import Api, Worker
from tests.support.stack import PNG, Stack

PROBE_SECONDS = 15
PROBES = 4
RESTARTS = 12
UP_SECONDS = 3  # between two restarts


@dataclass(frozen=True)
class Service:
    stack: Stack
    api: Api
    worker: Worker
    edge: Edge


@contextmanager
def service() -> Iterator[Service]:
    keys = json.dumps({"alice": KEY})
    with TemporaryDirectory() as folder, Stack(Path(folder) / "stack", API_KEYS=keys) as stack:
        api, worker = stack.api(), stack.worker(children=1)
        with Edge(f"127.0.0.1:{api.port}", Path(folder) / "edge") as edge:
            yield Service(stack, api, worker, edge)


# -- slow clients


async def _probe(url: str, tls: ssl.SSLContext) -> tuple[list[float], int]:
    """Seconds of submits that wait for their result, and how many failed."""
    seconds, failed = list[float](), 0
    until = time.monotonic() + PROBE_SECONDS

    async def client() -> None:
        nonlocal failed
        async with httpx.AsyncClient(base_url=url, verify=tls, headers=AUTHORIZED, timeout=REQUEST_SECONDS_MAX) as http:
            while time.monotonic() < until:
                began = time.perf_counter()
                try:
                    answer = await http.post("/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=5"})
                    failed += answer.status_code != httpx.codes.OK
                except httpx.HTTPError:
                    failed += 1
                seconds.append(time.perf_counter() - began)
                await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(client() for _ in range(PROBES)))
    return sorted(seconds), failed


def _resident_mib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) >> 10 if found else 0


def slow() -> None:
    with service() as it:
        places: dict[str, tuple[str, ssl.SSLContext, int, Path | None]] = {
            "the API's own port": (it.api.url, ssl.create_default_context(), it.api.port, None),
            "behind the edge": (it.edge.url, it.edge.tls(), it.edge.port, it.edge.authority),
        }
        print("| | 1,000 slow | others: p50, p99, failed | memory of API, edge | the slow clients |")
        print("|---|---|---|---|---|")
        for place, (url, tls, port, authority) in places.items():
            for kind in ("none", "headers", "bodies", "none"):
                ends = Counter[str]()
                with attacked(port, authority, kind, ends, PROBE_SECONDS) if kind in DRIBBLES else nullcontext():
                    seconds, failed = asyncio.run(_probe(url, tls))
                    memory = [_resident_mib(process.pid) for process in (it.api, it.edge)]
                p50, p99 = (seconds[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
                shown = ", ".join(f"{count} {end}" for end, count in ends.most_common(4))
                figures = f"{p50:.1f} ms, {p99:.1f} ms, {failed} of {len(seconds)}"
                print(f"| {place} | {kind} | {figures} | {memory[0]}, {memory[1]} MiB | {shown} |", flush=True)


# -- restarts


async def _restarts(api: Api) -> None:
    for _ in range(RESTARTS):
        await asyncio.sleep(UP_SECONDS)
        await asyncio.to_thread(api.stop)
        await asyncio.to_thread(api.start)
    await asyncio.sleep(UP_SECONDS)


def restarts() -> bool:
    """Whether nothing was lost or doubled."""
    with service() as it:
        print(f"\n| {RESTARTS} restarts of the API | requests | failed | share |\n|---|---|---|---|")
        for place, url, tls in (
            ("on its own port", it.api.url, ssl.create_default_context()),
            ("behind the edge", it.edge.url, it.edge.tls()),
        ):
            ends = asyncio.run(failures(_restarts(it.api), url, tls, AUTHORIZED))
            print(f"| {place} | {row(ends)} |", flush=True)
        before = it.stack.stat("accepted")
        submits, repeated, job_ids = asyncio.run(repeats(_restarts(it.api), it.edge.url, it.edge.tls(), AUTHORIZED))
        made: int = it.stack.stat("accepted") - before
        print(f"| behind the edge, with Idempotency-Key | {submits} submits, {repeated} repeated | {made} jobs made, |")
        print(f"| | | {len(job_ids)} answered | |")
        return made == submits and len(job_ids) == submits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("slow", "restarts"))
    only = parser.parse_args().only
    if only != "restarts":
        slow()
    if only != "slow" and not restarts():
        sys.exit("jobs were lost or doubled")


if __name__ == "__main__":
    main()
