"""Clients that go on while a service is disturbed: what fails, and what repeats lose or double."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx

from tests.support.pictures import samples
from tests.support.stack import PNG

BAG = samples()["0018-bag.png"]
LOAD_CLIENTS = 12
PAUSE_SECONDS = 0.05
REQUEST_SECONDS_MAX = 20
REPEATS_MAX = 20

Call = Callable[[httpx.AsyncClient, int], Awaitable[None]]


async def _under_load(
    disturbance: Awaitable[None], url: str, tls: ssl.SSLContext, headers: dict[str, str], call: Call
) -> None:
    """Make calls, from several clients at the same time, until the disturbance has ended."""
    stop = asyncio.Event()

    async def loop(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, verify=tls, headers=headers, timeout=REQUEST_SECONDS_MAX) as http:
            while not stop.is_set():
                await call(http, number)
                await asyncio.sleep(PAUSE_SECONDS)

    async def disturb() -> None:
        try:
            await disturbance
        finally:
            stop.set()

    await asyncio.gather(disturb(), *map(loop, range(LOAD_CLIENTS)))


async def failures(
    disturbance: Awaitable[None], url: str, tls: ssl.SSLContext, headers: dict[str, str]
) -> Counter[str]:
    """How often each request ended in which way; every second client submits, the others read."""
    ends = Counter[str]()

    async def call(http: httpx.AsyncClient, number: int) -> None:
        method = "POST" if number % 2 else "GET"
        try:
            if number % 2:
                answer = await http.post("/v1/jobs", content=BAG, headers=PNG)
            else:
                answer = await http.get("/v1/jobs?limit=1")
            ends[f"{method} {answer.status_code}"] += 1
        except httpx.HTTPError as error:
            ends[f"{method} {type(error).__name__}"] += 1

    await _under_load(disturbance, url, tls, headers, call)
    return ends


def row(ends: Counter[str]) -> str:
    """Requests, failed ones, their share."""
    failed = ends.total() - ends["GET 200"] - ends["POST 202"]
    return f"{ends.total()} | {failed} {dict(ends)} | {failed / ends.total():.3%}"


async def repeats(
    disturbance: Awaitable[None], url: str, tls: ssl.SSLContext, headers: dict[str, str]
) -> tuple[int, int, set[str]]:
    """Submits, requests beyond one for each, and the ids of their jobs."""
    submits = repeated = 0
    job_ids = set[str]()

    async def submit(http: httpx.AsyncClient, number: int) -> None:
        nonlocal submits, repeated
        submits += 1
        key = PNG | {"Idempotency-Key": f"{number}-{submits}"}
        for _ in range(REPEATS_MAX):
            with suppress(httpx.HTTPError):
                answer = await http.post("/v1/jobs", content=BAG, headers=key)
                if answer.is_success:
                    job_ids.add(answer.json()["id"])
                    return
            repeated += 1
            await asyncio.sleep(PAUSE_SECONDS)
        raise RuntimeError(f"a submit failed {REPEATS_MAX} times")

    await _under_load(disturbance, url, tls, headers, submit)
    return submits, repeated, job_ids
