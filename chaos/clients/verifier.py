"""Reads every accepted job to its end, once more later, and some of them in every other way there is."""

import asyncio
import csv
import json
import random
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from chaos.clients.http import Caller
from chaos.ledger import Accepted, Ledger
from chaos.readings import Reading

READS_MAX = 200  # concurrent: after an outage all jobs would be read together, again and again
FOLLOW_SHARE, EVENTS_SHARE, PAGES_SHARE, CSV_SHARE = 0.1, 0.05, 0.05, 0.05
CANCEL_SHARE, DELETE_SHARE = 0.05, 0.1
PAGE_ITEMS = 7
AUDIT_SECONDS_MAX = 30
END_STATES = ("completed", "failed", "canceled")
_NDJSON = "application/x-ndjson"
_BROKEN = (aiohttp.ClientError, OSError, TimeoutError)


class Verifier:
    def __init__(
        self,
        ledger: Ledger,
        random_source: random.Random,
        *,
        audited: Callable[[str], bool],
        recheck_seconds: float,
        end_seconds_max: float,
    ) -> None:
        """`audited` says whether the audit has read a job, `end_seconds_max` is how long a job's end is waited for."""
        self._ledger = ledger
        self._random = random_source
        self._audited = audited
        self._recheck_seconds = recheck_seconds
        self._end_seconds_max = end_seconds_max
        self._reads = asyncio.Semaphore(READS_MAX)

    async def verify(self, job: Accepted, caller: Caller) -> None:
        """Read the job once it has ended, in one way or several, and again later; the ledger compares."""
        followed, streamed = await asyncio.gather(self._follow(job, caller), self._events(job, caller))
        if len(job.expected) > 1 and self._random.random() < CANCEL_SHARE:
            await self._cancel(job, caller)
        reading, why = await self._end_of(job, caller)
        if reading is None:
            self._ledger.never_ended(job, why)
            return
        self._ledger.ended(job, reading)
        if followed is not None:
            self._ledger.read_otherwise(job, "followed", followed)
        if streamed is not None:
            self._ledger.read_job_otherwise(job, "its events ended with", streamed)
        await self._in_other_ways(job, caller)
        await asyncio.sleep(self._random.uniform(0.2, 1) * self._recheck_seconds)
        reading, why = await self._end_of(job, caller)
        if reading is None:
            self._ledger.vanished(job, why)
            return
        self._ledger.read_again(job, reading)
        if not job.webhook and self._random.random() < DELETE_SHARE:
            await self._delete(job, caller)

    async def _end_of(self, job: Accepted, caller: Caller) -> tuple[Reading | None, str]:
        """The ended job and its items, or why there are none."""
        until = time.monotonic() + self._end_seconds_max
        why = ""
        while time.monotonic() < until:
            try:
                status, body = await self._get(caller, f"/v1/jobs/{job.job_id}?wait=5")
                found = json.loads(body)
                why = f"{status}: {found.get('status') or found.get('code')}"
                if status in (404, 410):
                    return None, why
                if found.get("status") in END_STATES:
                    status, body = await self._get(caller, f"/v1/jobs/{job.job_id}/results", Accept=_NDJSON)
                    if status == 200:
                        return Reading(found, [json.loads(line) for line in body.splitlines()]), ""
            except _BROKEN as error:
                why = type(error).__name__
            await asyncio.sleep(1)
        return None, f"no end within {self._end_seconds_max:.0f} s: {why}"

    async def _get(self, caller: Caller, path: str, **headers: str) -> tuple[int, bytes]:
        async with self._reads:
            return await caller.get(path, **headers)

    # -- while it runs

    async def _follow(self, job: Accepted, caller: Caller) -> list[dict[str, Any]] | None:
        """All items in order, followed to the end of the job; after a broken response from where it broke."""
        if self._random.random() >= FOLLOW_SHARE:
            return None
        until, items = time.monotonic() + self._end_seconds_max, list[dict[str, Any]]()
        while time.monotonic() < until:
            status = await self.follow_once(job, caller, caller.url(""), items)
            if status in (404, 410) or (status == 200 and len(items) < len(job.expected)):
                return None
            if status == 200:
                return items
            await asyncio.sleep(0.5)
        return None

    async def follow_once(self, job: Accepted, caller: Caller, base: str, items: list[dict[str, Any]]) -> int:
        """Add to the items what one response of one API has of them; one that ends in an orderly way must have all.

        Returns its status, or 0 if there was none, or it broke.
        """
        url = f"{base}/v1/jobs/{job.job_id}/results?follow=true&from={len(items)}"
        try:
            async with caller.http.get(url, headers=caller.headers | {"Accept": _NDJSON}) as response:
                if response.status == 200:
                    async for line in response.content:
                        items.append(json.loads(line))  # noqa: PERF401 - keeps what came before it broke
                    if len(items) < len(job.expected):
                        self._ledger.ended_short(job, f"followed: {len(items)} of {len(job.expected)} lines")
                return response.status
        except (*_BROKEN, ValueError):  # the connection broke, maybe within a line
            return 0

    async def _events(self, job: Accepted, caller: Caller) -> dict[str, Any] | None:
        """The ended job as its events have it. A stream without an `end` is opened again (docs/reference/http.md)."""
        if self._random.random() >= EVENTS_SHARE:
            return None
        until = time.monotonic() + self._end_seconds_max
        while time.monotonic() < until:
            try:
                async with caller.http.get(
                    caller.url(f"/v1/jobs/{job.job_id}/events"), headers=caller.headers
                ) as response:
                    if response.status in (404, 410):
                        return None
                    text = (await response.read()).decode()
                    if response.status == 200 and "event: end\n" in text:
                        data = text.partition("event: end\n")[2].partition("data: ")[2].partition("\n")[0]
                        return dict(json.loads(data))
            except _BROKEN:
                pass
            await asyncio.sleep(0.5)
        self._ledger.ended_short(job, f"no end among its events for {self._end_seconds_max:g} s")
        return None

    async def _cancel(self, job: Accepted, caller: Caller) -> None:
        job.may_be_canceled = True
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await caller.change("POST", f"/v1/jobs/{job.job_id}/cancel")

    # -- once it has ended

    async def _in_other_ways(self, job: Accepted, caller: Caller) -> None:
        try:
            if self._random.random() < PAGES_SHARE:
                await self._pages(job, caller)
            if self._random.random() < CSV_SHARE:
                await self._csv(job, caller)
        except _BROKEN:
            pass  # an API died: other jobs are read in these ways, too

    async def _pages(self, job: Accepted, caller: Caller) -> None:
        items, cursor = list[dict[str, Any]](), ""
        while True:
            path = f"/v1/jobs/{job.job_id}/results?limit={PAGE_ITEMS}" + (f"&cursor={cursor}" if cursor else "")
            status, body = await self._get(caller, path)
            if status != 200:
                return
            page = json.loads(body)
            items += page["items"]
            if (cursor := page["next_cursor"]) is None:
                break
        self._ledger.read_otherwise(job, "in pages", items)

    async def _csv(self, job: Accepted, caller: Caller) -> None:
        assert job.first is not None
        status, body = await self._get(caller, f"/v1/jobs/{job.job_id}/results?format=csv")
        if status != 200:
            return
        rows = [(row["status"], row["class"]) for row in csv.DictReader(body.decode().splitlines())]
        if rows != [(item["status"], item.get("class", "")) for item in job.first.items]:
            self._ledger.contradicted(
                job, f"its CSV has {len(rows)} rows, which differ from its {len(job.first.items)} items"
            )

    async def _delete(self, job: Accepted, caller: Caller) -> None:
        """A deleted job is gone. The audit, which counts what has ended, must have read it before."""
        until = time.monotonic() + AUDIT_SECONDS_MAX
        while not self._audited(job.job_id):
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.2)
        began = time.monotonic()
        if await caller.change("DELETE", f"/v1/jobs/{job.job_id}") not in (204, 404, 410):
            return
        try:
            status, _ = await self._get(caller, f"/v1/jobs/{job.job_id}")
        except _BROKEN:
            return
        if status == 200 and not self._ledger.has_lost_since(began):  # it may have forgotten that it deleted the job
            self._ledger.contradicted(job, "is there after it was deleted")
