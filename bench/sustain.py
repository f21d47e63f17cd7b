"""A steady load of single submits on a running server.

    make run                                               # in another terminal
    .venv/bin/python -m bench.sustain --rate 1000 --minutes 30

Every hundredth job is read back later and must have ended. Prints and writes a row every ten seconds: accepted and
refused submits, latencies, and the memory that Redis reports. `python -m bench.soak` uses its own stack, and checks
whether its processes have grown.
"""

import argparse
import asyncio
import csv
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import redis

Row = dict[str, Any]

SAMPLE = Path("tests/data/0007-shirt.png")
ROW_SECONDS = 10
READ_BACK_EVERY = 100
READ_BACK_AFTER_SECONDS = 5
COLUMNS = ("second", "accepted", "refused", "p50_ms", "p99_ms", "used_memory_mb", "records_mb", "uploads_mb", "keys")


class Load:
    def __init__(self, url: str, rate: int, seconds: float) -> None:
        self._url, self._rate, self._seconds = url, rate, seconds
        self._body = SAMPLE.read_bytes()
        self.statuses = Counter[int]()
        self.latencies = list[float]()
        self._to_read = deque[tuple[float, str]]()
        self.read_back = Counter[str]()
        self._in_flight = set[asyncio.Task[None]]()

    async def run(self) -> None:
        async with aiohttp.ClientSession(self._url, connector=aiohttp.TCPConnector(limit=256)) as client:
            reader = asyncio.create_task(self._read_back(client))
            started = time.monotonic()
            sent = 0
            while (now := time.monotonic() - started) < self._seconds:
                due = int(now * self._rate)
                for number in range(sent, due):
                    task = asyncio.create_task(self._submit(client, number))
                    self._in_flight.add(task)
                    task.add_done_callback(self._in_flight.discard)
                sent = max(sent, due)
                await asyncio.sleep(0.005)
            await asyncio.gather(*self._in_flight)
            while self._to_read:
                await asyncio.sleep(0.1)
            reader.cancel()

    async def _submit(self, client: aiohttp.ClientSession, number: int) -> None:
        started = time.monotonic()
        async with client.post("/v1/jobs", data=self._body, headers={"Content-Type": "image/png"}) as answer:
            body = await answer.json(content_type=None)
            self.statuses[answer.status] += 1
        self.latencies.append(time.monotonic() - started)
        if answer.status == 202 and number % READ_BACK_EVERY == 0:
            self._to_read.append((time.monotonic() + READ_BACK_AFTER_SECONDS, body["links"]["self"]))

    async def _read_back(self, client: aiohttp.ClientSession) -> None:
        while True:
            while self._to_read and self._to_read[0][0] <= time.monotonic():
                _, path = self._to_read.popleft()
                async with client.get(path) as answer:
                    body: dict[str, Any] = await answer.json()
                    self.read_back[body.get("status", str(answer.status))] += 1
            await asyncio.sleep(0.05)


async def observe(load: Load, server: redis.Redis, path: Path, rows: list[Row], more: Callable[[], Row] = dict) -> None:
    """Every ten seconds, print a row, write it to a file and append it to `rows`, until canceled.

    `more` returns further columns.
    """
    started = time.monotonic()
    columns = [*COLUMNS, *more()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        # Extra columns are ignored: a process that rewrites Valkey's file comes and goes.
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        print(*columns, sep="\t")
        while True:
            await asyncio.sleep(ROW_SECONDS)
            latencies, load.latencies = sorted(load.latencies), []
            stats = {name: int(value) for name, value in server.hgetall("stats").items()}
            values = (
                round(time.monotonic() - started),
                load.statuses[202],
                sum(load.statuses.values()) - load.statuses[202],
                *(round(1000 * latencies[int(len(latencies) * q)], 1) if latencies else "" for q in (0.5, 0.99)),
                *(
                    round(n / 1e6, 1)
                    for n in (server.info("memory")["used_memory"], stats.get(b"records", 0), stats.get(b"uploads", 0))
                ),
                server.dbsize(),
            )
            row = dict(zip(COLUMNS, values, strict=True)) | more()
            writer.writerow(row)
            file.flush()
            print(*row.values(), sep="\t", flush=True)
            rows.append(row)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--redis-url", default=f"unix://{Path('data/port-8000/valkey.sock').resolve()}")
    parser.add_argument("--rate", type=int, default=1000, help="submits a second")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--csv", type=Path, default=Path("bench/results/sustain.csv"))
    arguments = parser.parse_args()
    load = Load(arguments.url, arguments.rate, arguments.minutes * 60)
    with redis.Redis.from_url(arguments.redis_url) as server:
        before = int(server.hget("stats", "transitions") or 0)
        observer = asyncio.create_task(observe(load, server, arguments.csv, []))
        await load.run()
        observer.cancel()
        transitions = int(server.hget("stats", "transitions") or 0) - before
        peak = server.info("memory")["used_memory_peak_human"]
    print(
        f"responses: {dict(load.statuses)}; read back: {dict(load.read_back)}; transitions: {transitions}; peak: {peak}"
    )


if __name__ == "__main__":
    asyncio.run(main())
