"""A steady load of every kind of submit by several owners; every accepted job is read to its end, and once more."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp

from chaos.clients.bodies import Sample
from chaos.clients.http import TIMEOUT_SECONDS, Caller, Outcomes
from chaos.clients.site import Site
from chaos.clients.submits import FORM_IMAGES, PART_IMAGES, PARTS, TAR_IMAGES, URL_IMAGES, Submitter
from chaos.clients.verifier import Verifier
from chaos.ledger import Accepted, Ledger

IN_FLIGHT_MAX = 400
TICK_SECONDS = 0.005
LATE_SECONDS = 3.0  # an upload counts as idle after 8 (chaos/run.py), in which there are several pauses
IMAGES = {
    "single": 1,
    "twins": 1,
    "form": FORM_IMAGES,
    "urls": URL_IMAGES,
    "tar": TAR_IMAGES,
    "parts": PARTS * PART_IMAGES,
    "canceled_halfway": 2 * PART_IMAGES,
}
PERCENT = {"single": 36, "twins": 1, "form": 22, "urls": 5, "tar": 25, "parts": 8, "canceled_halfway": 3}
"""Of images."""
OWNERS = {"alice": "alice-key-0123456789", "bob": "bob-key-012345678901", "carol": "carol-key-0123456789"}
SHARES = (0.6, 0.2, 0.2)
"""Of the submits: the first owner has most of them, and the others must not wait for it."""


class Load:
    def __init__(
        self,
        urls: list[str],
        ledger: Ledger,
        samples: Sequence[Sample],
        site: Site,
        *,
        models: Sequence[str],
        rate: float,
        seed: int,
        audited: Callable[[str], bool],
        recheck_seconds: float,
        end_seconds_max: float,
        refused_writes: Callable[[float, float], bool],
    ) -> None:
        """`refused_writes` returns whether Redis was down or full at any time between two times; `audited`, whether the
        store's audit has read a job.
        """
        self._urls = urls
        self._ledger = ledger
        self._samples = samples
        self._site = site
        self._models = models
        self._rate = rate
        self._random = random.Random(seed)
        self.verifier = Verifier(
            ledger,
            self._random,
            audited=audited,
            recheck_seconds=recheck_seconds,
            end_seconds_max=end_seconds_max,
        )
        self._tasks = set[asyncio.Task[None]]()
        self.submitting = 0
        """Submits that have no final response yet."""
        self._quiet = False
        self.submitters = list[Submitter]()
        """One for each owner."""
        self.outcomes = Outcomes(refused_writes)
        self.kinds = Counter[str]()
        """Accepted jobs by the way they were submitted."""
        self.stopping = False
        self.skipped = 0
        """Images that were not sent because too many submits had no response yet."""
        self.lag = 0.0
        """Maximum seconds that this client's event loop was late: responses may have waited for so long."""

    def uploads(self, url: str) -> int:
        """Archives that are being uploaded to this API."""
        return sum(submitter.caller.uploads[url] for submitter in self.submitters)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No new submits during the block."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    async def run(self) -> None:
        """Submit at the configured rate until `stopping`, and read every job to its end."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
            self.submitters = [self._submitter(http, owner, key) for owner, key in OWNERS.items()]
            try:
                await self._submit_until_stopping()
                while self._tasks:
                    await asyncio.wait(self._tasks)
            finally:  # if it was canceled: before the session closes
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _submit_until_stopping(self) -> None:
        submits = {kind: PERCENT[kind] / IMAGES[kind] for kind in IMAGES}
        at, images_due = time.monotonic(), 0.0
        while not self.stopping:
            before, at = at, time.monotonic()
            images_due += 0 if self._quiet else (at - before) * self._rate
            while images_due > 0:
                (kind,) = self._random.choices(list(submits), list(submits.values()))
                images_due -= IMAGES[kind]
                if self.submitting < IN_FLIGHT_MAX:
                    (submitter,) = self._random.choices(self.submitters, SHARES)
                    self._start(self._submit(kind, submitter))
                else:
                    self.skipped += IMAGES[kind]
            slept = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - slept - TICK_SECONDS
            self.lag = max(self.lag, late)
            if late > LATE_SECONDS:
                self.outcomes.late_at = time.monotonic()

    def _submitter(self, http: aiohttp.ClientSession, owner: str, key: str) -> Submitter:
        caller = Caller(http, self._urls, self._random, owner, key)
        return Submitter(caller, self._ledger, self.outcomes, self._samples, self._site, self._random, self._models)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.outcomes.violations[f"this client failed: {error!r}"] += 1

    async def _submit(self, kind: str, submitter: Submitter) -> None:
        self.submitting += 1
        try:
            job = await getattr(submitter, kind)()
        finally:
            self.submitting -= 1
        if job is not None:
            self.kinds[kind] += 1
            self.verify(job, submitter)

    def verify(self, job: Accepted, submitter: Submitter) -> None:
        """Read the job to its end, and once more."""
        self._start(self.verifier.verify(job, submitter.caller))
