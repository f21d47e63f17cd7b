"""Reads every accepted job to its end, and once more."""

import asyncio
import json
import random
import time
from typing import Any

import aiohttp

from chaos.ledger import Accepted, Ledger

VERIFY_SECONDS = 200
READS_MAX = 200  # concurrent: after an outage all jobs would be read together, again and again


class Verifier:
    def __init__(
        self,
        http: aiohttp.ClientSession,
        urls: list[str],
        ledger: Ledger,
        random_source: random.Random,
        *,
        recheck_seconds: float,
    ) -> None:
        self._http = http
        self._urls = urls
        self._ledger = ledger
        self._random = random_source
        self._recheck_seconds = recheck_seconds
        self._reads = asyncio.Semaphore(READS_MAX)

    async def verify(self, job: Accepted) -> None:
        """Read the job's items once it has ended, and again later; the ledger compares both."""
        items, why = await self._end_of(job)
        if items is None:
            self._ledger.never_ended(job, why)
            return
        self._ledger.ended(job, items)
        await asyncio.sleep(self._random.uniform(0.2, 1) * self._recheck_seconds)
        items, why = await self._end_of(job)
        if items is None:
            self._ledger.vanished(job, why)
        else:
            self._ledger.read_again(job, items)

    async def _end_of(self, job: Accepted) -> tuple[list[dict[str, Any]] | None, str]:
        """The items of an ended job, or why there are none."""
        until = time.monotonic() + VERIFY_SECONDS
        why = ""
        while time.monotonic() < until:
            url = self._random.choice(self._urls)
            try:
                status, body = await self._get(f"{url}/v1/jobs/{job.job_id}?wait=5")
                found = json.loads(body)
                why = f"{status}: {found.get('status')}"
                if status in (404, 410):
                    return None, why
                if found.get("status") in ("completed", "failed", "canceled"):
                    if len(job.expected) == 1:
                        return [found["result"]], ""
                    status, body = await self._get(f"{url}/v1/jobs/{job.job_id}/results?format=ndjson")
                    if status == 200:
                        return [json.loads(line) for line in body.splitlines()], ""
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = type(error).__name__
            await asyncio.sleep(1)
        return None, f"no end within {VERIFY_SECONDS} s: {why}"

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._reads, self._http.get(url) as reply:
            return reply.status, await reply.read()
