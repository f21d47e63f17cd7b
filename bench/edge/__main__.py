"""The edge under slow clients, and while the API restarts: real processes, and the shipped Caddyfile.

    .venv/bin/python -m bench.edge [--only slow|restarts]

`slow`: what others see while 1,000 connections dribble headers or bodies, for 15 s each. `restarts`: requests that fail
while the API is stopped and started 12 times, with and without the edge; and clients that repeat what failed with the
same Idempotency-Key, whose jobs are counted. Together about four minutes.
"""

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.connection
import re
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.edge.restart_load import BAG, PAUSE_SECONDS, REQUEST_SECONDS_MAX, failures, repeats, row
from tests.support.deploy.edge import AUTHORIZED, KEY, Edge
from tests.support.processes import Api, Worker
from tests.support.stack import PNG, Stack

SLOW_CLIENTS = 1_000
PROBE_SECONDS = 15
PROBES = 4
RESTARTS = 12
UP_SECONDS = 3  # between two restarts

HEAD = (
    f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: image/png\r\n".encode()
)
DRIBBLES = {  # what is sent at once, and what each second
    "headers": (HEAD, b"X-a: b\r\n"),
    "bodies": (HEAD + b"Content-Length: 600\r\n\r\n", b"x"),
}


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


async def _dribble(port: int, tls: ssl.SSLContext | None, kind: str, ends: Counter[str], until: float) -> None:
    """One slow client after the other, until the end. Counts how many seconds each was served."""
    at_once, each_second = DRIBBLES[kind]
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
            )
        except OSError as error:
            ends[type(error).__name__] += 1
            await asyncio.sleep(1)
            continue
        with suppress(OSError):
            writer.write(at_once)
            while time.monotonic() < until:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        if not await reader.read(1 << 10):
                            break
                writer.write(each_second)
                await writer.drain()
        ends["still open" if time.monotonic() >= until else f"ended after {time.monotonic() - began:.0f} s"] += 1
        writer.close()


def _attack(
    ready: multiprocessing.connection.Connection, port: int, authority: str | None, kind: str, seconds: float
) -> None:
    """In a process of its own, so that it does not slow down those who measure."""

    async def run() -> Counter[str]:
        tls = ssl.create_default_context(cafile=authority) if authority else None
        ends = Counter[str]()
        until = time.monotonic() + seconds
        await asyncio.gather(*(_dribble(port, tls, kind, ends, until) for _ in range(SLOW_CLIENTS)))
        return ends

    ready.send(asyncio.run(run()))


@contextmanager
def _attacked(port: int, authority: Path | None, kind: str, ends: Counter[str]) -> Iterator[None]:
    """Slow clients, from a moment before the block until after it."""
    ours, theirs = multiprocessing.Pipe()
    warm_up_seconds = 6
    arguments = (theirs, port, authority and str(authority), kind, PROBE_SECONDS + warm_up_seconds + 1)
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=arguments)
    process.start()
    time.sleep(warm_up_seconds)
    try:
        yield
    finally:
        if ours.poll(60):
            ends.update(ours.recv())
        process.join(10)


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
                with _attacked(port, authority, kind, ends) if kind in DRIBBLES else nullcontext():
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
