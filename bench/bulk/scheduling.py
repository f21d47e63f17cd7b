"""What a bulk job means for other jobs and for its owner: latency beside it, fairness, estimates, cancellation."""

import asyncio
import json
import statistics
import time
from typing import Any

import aiohttp

from bench.bulk.archives import pieces, tar_of
from bench.bulk.client import TAR, BulkClient, connected

_LATENCY_SUBMITS = 300


async def interactive(pngs: list[bytes]) -> dict[str, Any]:
    """Submit and wait for single images, one at a time: idle, then beside a bulk job of 100,000."""
    body = tar_of(pngs)
    async with connected() as client:
        await client.wait(await client.submit(body))  # warm-up
        idle = [await client.submit_and_wait(pngs[n]) for n in range(_LATENCY_SUBMITS)]
        path = await client.open_job()
        for _ in range(10):
            await client.post(f"{path}/items", pieces(body), **TAR)
        await client.post(f"{path}/seal")
        busy = list[float]()
        while (await client.get(path))["status"] != "completed":
            busy += [await client.submit_and_wait(pngs[n]) for n in range(10)]
    return {"submits_beside_bulk": len(busy), **_quantiles("idle", idle), **_quantiles("busy", busy)} | {
        f"{q}_ratio": round(_quantiles("x", busy)[f"x_{q}_ms"] / _quantiles("x", idle)[f"x_{q}_ms"], 2)
        for q in ("p50", "p99")
    }


async def fairness(pngs: list[bytes]) -> dict[str, Any]:
    """Three owners with 20,000 images each, submitted one after another within a second."""
    names = ("alice", "bob", "carol")
    body = tar_of(pngs * 2)
    api_keys = {name: f"{name}-key-0123456789" for name in names}
    async with connected(API_KEYS=json.dumps(api_keys), token=api_keys["alice"]) as client:
        await client.wait(await client.submit(tar_of(pngs)))  # warm-up
        started = time.perf_counter()

        async def run(number: int, name: str) -> float:
            await asyncio.sleep(0.3 * number)
            headers = {"Authorization": f"Bearer {api_keys[name]}"}
            async with aiohttp.ClientSession(client.service.url, headers=headers) as http:
                own = BulkClient(client.service, http)
                await own.wait(await own.submit(body))
                return time.perf_counter() - started

        seconds = await asyncio.gather(*(run(number, name) for number, name in enumerate(names)))
    return {
        **{f"{name}_s": round(s, 2) for name, s in zip(names, seconds, strict=True)},
        "last_by_first": round(max(seconds) / min(seconds), 3),
    }


async def eta(pngs: list[bytes]) -> dict[str, Any]:
    """`eta_seconds` of a job of 100,000 by the time that was left, from 5% on until a second before the end."""
    estimates = list[tuple[float, float]]()
    async with connected() as client:
        await client.wait(await client.submit(tar_of(pngs)))  # warm-up
        with client.servers.stopped("worker"):  # progress during the upload would falsify the rate
            path = await client.submit(tar_of(pngs * 10))
        while True:
            job = await client.get(path)
            counts, now = job["counts"], time.perf_counter()
            if job["status"] == "completed":
                break
            if job["eta_seconds"] is not None and counts["succeeded"] >= 0.05 * counts["total"]:
                estimates.append((now, job["eta_seconds"]))
            await asyncio.sleep(0.1)
    ratios = [eta_seconds / (now - at) for at, eta_seconds in estimates if now - at > 1]
    return {"looks": len(ratios), "least_ratio": round(min(ratios), 2), "largest_ratio": round(max(ratios), 2)}


async def cancel(pngs: list[bytes]) -> dict[str, Any]:
    """Cancel a running job of 1,000,000 items: how soon no worker spends time on it any more."""
    async with connected() as client:
        await client.wait(await client.submit(tar_of(pngs)))  # warm-up
        with client.servers.stopped("worker"):  # so that all items wait
            path = await client.open_job()
            body = tar_of([b"x"] * 100_000)
            for _ in range(10):
                await client.post(f"{path}/items", pieces(body), **TAR)
            await client.post(f"{path}/seal")
        while (await client.get(path))["counts"]["pending"] == 1_000_000:
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        canceled = await client.post(f"{path}/cancel")
        cancel_seconds = time.perf_counter() - started
        single_seconds = await client.submit_and_wait(pngs[0])
        transitions = client.service.stack.stat("transitions")
        while client.service.stack.stat("uploads"):
            await asyncio.sleep(0.01)
        freed_seconds = time.perf_counter() - started
        assert (await client.get(path))["counts"] == canceled["counts"], "a terminal state never changes"
        assert client.service.stack.stat("transitions") == transitions
    return {
        "pending_when_canceled": canceled["counts"]["canceled"],
        "cancel_answered_ms": round(1000 * cancel_seconds, 1),
        "single_submit_and_wait_right_after_ms": round(1000 * single_seconds, 1),
        "all_uploads_freed_s": round(freed_seconds, 2),
    }


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{name}_p50_ms": round(1000 * cuts[49], 2), f"{name}_p99_ms": round(1000 * cuts[98], 2)}
