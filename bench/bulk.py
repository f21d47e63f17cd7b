"""Bulk jobs, measured on a stack of this script's own: `make bench`.

    .venv/bin/python -m bench.bulk [archive] [million] [interactive] [fairness] [eta] [cancel] [upload]

Server CPU is that of Valkey, the API and the worker with their children. Writes bench/results/bulk.json.
"""

import argparse
import asyncio
import json
import os
import statistics
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench.servers import Servers
from bench.services import GIB, Darkroom, darkroom
from training.data import load_fashion_mnist
from training.fmnist_mlp import png_on_white

RESULTS = Path("bench/results/bulk.json")
NDJSON = {"Accept": "application/x-ndjson"}
TAR = {"Content-Type": "application/x-tar"}
PIECE = 256 << 10
LATENCY_SUBMITS = 300
Case = Callable[[list[bytes]], Coroutine[Any, Any, dict[str, Any]]]


def images() -> list[bytes]:
    """The 10,000 test images of Fashion-MNIST, each a PNG of about 600 B."""
    return [png_on_white(image) for image in load_fashion_mnist(Path("data/training")).test.images]


def tar_of(pngs: list[bytes], first: int = 0) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, png in enumerate(pngs, first):
            entry = tarfile.TarInfo(f"{number:07}.png")
            entry.size = len(png)
            archive.addfile(entry, BytesIO(png))
    return file.getvalue()


def zip_of(pngs: list[bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, png in enumerate(pngs):
            archive.writestr(f"{number:07}.png", png)
    return file.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


class Client:
    def __init__(self, service: Darkroom, http: aiohttp.ClientSession) -> None:
        self.service = service
        self.servers = service.servers
        self.http = http

    async def post(self, path: str, data: bytes | AsyncIterator[bytes] | None = None, **headers: str) -> dict[str, Any]:
        async with self.http.post(path, data=data, headers=headers) as answer:
            assert answer.status < 300, await answer.text()
            body: dict[str, Any] = await answer.json()
            return body

    async def get(self, path: str) -> dict[str, Any]:
        async with self.http.get(path) as answer:
            body: dict[str, Any] = await answer.json()
            return body

    async def submit(self, body: bytes, content_type: str = TAR["Content-Type"], query: str = "") -> str:
        job = await self.post(f"/v1/jobs{query}", pieces(body), **{"Content-Type": content_type})
        return str(job["links"]["self"])

    async def follow(self, path: str, classes: Sequence[str] = ()) -> int:
        """Read all results as they come, in order, all of which must have succeeded; how many.

        Where classes are given, image N must be of the class N, and after the last one they begin again.
        """
        count, rest = 0, b""
        async with self.http.get(f"{path}/results?follow=true", headers=NDJSON) as answer:
            async for data in answer.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    assert line.startswith(b'{"index":%d,' % count), line
                    assert b'"status":"succeeded"' in line
                    assert not classes or f'"class":"{classes[count % len(classes)]}"'.encode() in line, line
                    count += 1
        return count

    async def ended(self, path: str) -> dict[str, Any]:
        while True:
            async with self.http.get(f"{path}?wait=20") as answer:
                job: dict[str, Any] = await answer.json()
                if job["status"] in ("completed", "failed", "canceled"):
                    return job

    async def submit_and_wait(self, png: bytes) -> float:
        """Seconds until the result of one image is there."""
        started = time.perf_counter()
        headers = {"Content-Type": "image/png", "Prefer": "wait=10"}
        async with self.http.post("/v1/jobs", data=png, headers=headers) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            await answer.read()
        return time.perf_counter() - started


class Cost:
    """Server CPU from one moment to another, in ms an image."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._before = servers.cpu_seconds()
        self._started = time.perf_counter()

    def of(self, count: int) -> dict[str, Any]:
        seconds = time.perf_counter() - self._started
        after = self._servers.cpu_seconds()
        each = {name: round(1000 * (after[name] - self._before[name]) / count, 4) for name in after}
        return {
            "images_per_second": round(count / seconds),
            "server_cpu_ms_per_image": round(sum(each.values()), 4),
            **{f"{name}_cpu_ms_per_image": value for name, value in each.items()},
        }


async def archive(pngs: list[bytes]) -> dict[str, Any]:
    """One archive of 10,000 PNGs, from the first byte sent to the last result read."""
    rows: dict[str, list[dict[str, Any]]] = {"tar": [], "zip": []}
    bodies = {"tar": (tar_of(pngs), "application/x-tar"), "zip": (zip_of(pngs), "application/zip")}
    async with connected() as client:
        await client.ended(await client.submit(bodies["tar"][0]))  # everything has run once
        for _ in range(5):
            for kind, (body, content_type) in bodies.items():
                cost = Cost(client.servers)
                assert await client.follow(await client.submit(body, content_type)) == len(pngs)
                rows[kind].append(cost.of(len(pngs)))
    return {kind: median(of_kind) for kind, of_kind in rows.items()}


async def million(pngs: list[bytes]) -> dict[str, Any]:
    """1,000,000 PNGs in an open job of 20 parts, four at a time; results are read while it runs."""
    part = 50_000
    async with connected(OWNER_PENDING_ITEMS_MAX="2000000") as client:
        await client.ended(await client.submit(tar_of(pngs)))
        small = Cost(client.servers)
        assert await client.follow(await client.submit(tar_of(pngs))) == len(pngs)
        baseline = small.of(len(pngs))
        client.servers.reset_peak("api")
        before, _ = client.servers.memory_bytes("api")
        cost = Cost(client.servers)
        path = str((await client.post("/v1/jobs?open=true"))["links"]["self"])
        reader = asyncio.create_task(client.follow(path))
        bodies = tar_of(pngs * (part // len(pngs)))
        turns = asyncio.Semaphore(4)

        async def send(number: int) -> None:
            async with turns:
                headers = TAR | {"Idempotency-Key": f"part-{number}"}
                await client.post(f"{path}/items", pieces(bodies), **headers)

        await asyncio.gather(*(send(number) for number in range(20)))
        await client.post(f"{path}/seal")
        count = await reader
        assert count == 20 * part, count
        result = cost.of(count)
        _, peak = client.servers.memory_bytes("api")
        used = client.service.stack.redis.info("memory")["used_memory_peak"]
        started = time.perf_counter()
        async with client.http.delete(path) as answer:
            assert answer.status == 204
        delete_ms = round(1000 * (time.perf_counter() - started), 1)
    return {
        **result,
        "cost_by_that_of_10000": round(result["server_cpu_ms_per_image"] / baseline["server_cpu_ms_per_image"], 2),
        "redis_used_memory_peak_mib": used >> 20,
        "redis_maxmemory_mib": GIB >> 20,
        "api_resident_before_mib": before >> 20,
        "api_resident_peak_mib": peak >> 20,
        "delete_ms": delete_ms,
    }


async def interactive(pngs: list[bytes]) -> dict[str, Any]:
    """Submit and wait for single images, one at a time: idle, then beside a bulk job of 100,000."""
    body = tar_of(pngs)
    async with connected() as client:
        await client.ended(await client.submit(body))
        idle = [await client.submit_and_wait(pngs[n]) for n in range(LATENCY_SUBMITS)]
        path = str((await client.post("/v1/jobs?open=true"))["links"]["self"])
        for _ in range(10):
            await client.post(f"{path}/items", pieces(body), **TAR)
        await client.post(f"{path}/seal")
        busy = list[float]()
        while True:
            if (await client.get(path))["status"] == "completed":
                break
            busy += [await client.submit_and_wait(pngs[n]) for n in range(10)]
    return {"submits_beside_bulk": len(busy), **quantiles("idle", idle), **quantiles("busy", busy)} | {
        f"{q}_ratio": round(quantiles("x", busy)[f"x_{q}_ms"] / quantiles("x", idle)[f"x_{q}_ms"], 2)
        for q in ("p50", "p99")
    }


async def fairness(pngs: list[bytes]) -> dict[str, Any]:
    """Three owners with 20,000 images each, submitted one after another within a second."""
    names = ("alice", "bob", "carol")
    body = tar_of(pngs * 2)
    api_keys = {name: f"{name}-key-0123456789" for name in names}
    async with connected(API_KEYS=json.dumps(api_keys), token=api_keys["alice"]) as client:
        await client.ended(await client.submit(tar_of(pngs)))
        started = time.perf_counter()

        async def run(number: int, name: str) -> float:
            await asyncio.sleep(0.3 * number)
            headers = {"Authorization": f"Bearer {api_keys[name]}"}
            async with aiohttp.ClientSession(client.service.url, headers=headers) as http:
                own = Client(client.service, http)
                await own.ended(await own.submit(body))
                return time.perf_counter() - started

        seconds = await asyncio.gather(*(run(number, name) for number, name in enumerate(names)))
    return {
        **{f"{name}_s": round(s, 2) for name, s in zip(names, seconds, strict=True)},
        "last_by_first": round(max(seconds) / min(seconds), 3),
    }


async def eta(pngs: list[bytes]) -> dict[str, Any]:
    """`eta_seconds` of a job of 100,000, against what was left in truth, from 5% on until a second before the end."""
    said = list[tuple[float, float]]()
    async with connected() as client:
        await client.ended(await client.submit(tar_of(pngs)))
        with client.servers.stopped("worker"):  # what was done while it came in would say nothing of the rest
            path = await client.submit(tar_of(pngs * 10))
        while True:
            job = await client.get(path)
            counts, now = job["counts"], time.perf_counter()
            if job["status"] == "completed":
                break
            if job["eta_seconds"] is not None and counts["succeeded"] >= 0.05 * counts["total"]:
                said.append((now, job["eta_seconds"]))
            await asyncio.sleep(0.1)
    ratios = [told / (now - at) for at, told in said if now - at > 1]
    return {"looks": len(ratios), "least_ratio": round(min(ratios), 2), "largest_ratio": round(max(ratios), 2)}


async def cancel(pngs: list[bytes]) -> dict[str, Any]:
    """A job of 1,000,000 items that runs is canceled: how soon nothing of it is worked on any more."""
    async with connected() as client:
        await client.ended(await client.submit(tar_of(pngs)))
        with client.servers.stopped("worker"):  # so that all of it waits
            path = str((await client.post("/v1/jobs?open=true"))["links"]["self"])
            body = tar_of([b"x"] * 100_000)
            for _ in range(10):
                await client.post(f"{path}/items", pieces(body), **TAR)
            await client.post(f"{path}/seal")
        while (await client.get(path))["counts"]["pending"] == 1_000_000:
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        canceled = await client.post(f"{path}/cancel")
        answered = time.perf_counter() - started
        single = await client.submit_and_wait(pngs[0])
        transitions = client.service.stack.stat("transitions")
        while client.service.stack.stat("uploads"):
            await asyncio.sleep(0.01)
        freed = time.perf_counter() - started
        assert (await client.get(path))["counts"] == canceled["counts"], "a terminal state never changes"
        assert client.service.stack.stat("transitions") == transitions
    return {
        "pending_when_canceled": canceled["counts"]["canceled"],
        "cancel_answered_ms": round(1000 * answered, 1),
        "single_submit_and_wait_right_after_ms": round(1000 * single, 1),
        "all_uploads_freed_s": round(freed, 2),
    }


async def upload(pngs: list[bytes]) -> dict[str, Any]:
    """2 GB of a tar of 64 KB files: how much memory the API takes for it."""
    data = pngs[0] + os.urandom(64 * 1024 - len(pngs[0]))

    async def body() -> AsyncIterator[bytes]:
        for number in range((2 << 30) // len(data)):
            entry = tarfile.TarInfo(f"{number:07}.png")
            entry.size = len(data)
            yield entry.tobuf() + data
        yield bytes(1024)

    async with connected() as client:
        await client.ended(await client.submit(tar_of(pngs)))
        client.servers.reset_peak("api")
        before, _ = client.servers.memory_bytes("api")
        cost = Cost(client.servers)
        job = await client.post("/v1/jobs", body(), **TAR)
        path = job["links"]["self"]
        ended = await client.ended(path)
        count = ended["counts"]["total"]
        result = cost.of(count)
        _, peak = client.servers.memory_bytes("api")
        used = client.service.stack.redis.info("memory")["used_memory_peak"]
    return {
        "bytes": count * len(data),
        **result,
        "api_resident_before_mib": before >> 20,
        "api_resident_peak_mib": peak >> 20,
        "redis_used_memory_peak_mib": used >> 20,
    }


@asynccontextmanager
async def connected(token: str = "", **settings: str) -> AsyncIterator[Client]:
    """A stack, and a client of it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=None)
    with darkroom(settings) as service:
        async with aiohttp.ClientSession(service.url, headers=headers, timeout=timeout, read_bufsize=1 << 20) as http:
            yield Client(service, http)


def quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{name}_p50_ms": round(1000 * cuts[49], 2), f"{name}_p99_ms": round(1000 * cuts[98], 2)}


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]} | {"runs": len(rows)}


CASES: dict[str, Case] = {
    "archive": archive,
    "million": million,
    "interactive": interactive,
    "fairness": fairness,
    "eta": eta,
    "cancel": cancel,
    "upload": upload,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"{', '.join(CASES)}; all where none is named")
    wanted = parser.parse_args().cases or list(CASES)
    if unknown := set(wanted) - CASES.keys():
        parser.error(f"there is no case {', '.join(unknown)}")
    pngs = images()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    found = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    for name in wanted:
        found[name] = asyncio.run(CASES[name](pngs))
        print(name, json.dumps(found[name], indent=2), flush=True)
        RESULTS.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
