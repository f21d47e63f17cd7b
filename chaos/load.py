"""A steady load of single images, small forms and archives; every accepted job is read to its end, and once more."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import aiohttp

from bench.bulk.archives import tar_of
from chaos.ledger import Ledger
from chaos.verifier import Verifier

IN_FLIGHT_MAX = 400
TIMEOUT_SECONDS = 40
CONNECT_TRIES_SECONDS = 1
KEY_TRIES_SECONDS = 150  # an aborted upload occupies its key until it is canceled
TICK_SECONDS = 0.005
FORM_IMAGES, TAR_IMAGES, PIECES = 8, 90, 6
# Shares of images: singles 40 %, forms 25 %, archives 35 %. The numbers are submits per 100 images.
SUBMITS = {"single": 40.0, "form": 25 / FORM_IMAGES, "tar": 35 / TAR_IMAGES}
IMAGES = {"single": 1, "form": FORM_IMAGES, "tar": TAR_IMAGES}
BAD_IMAGE, BAD_SHARE = b"this is no picture", 0.02
KEYED_SHARE = 0.5


class SubmitOutcome(NamedTuple):
    summary: str
    """Status and code, or the error of the connection."""
    job_id: str | None = None
    connected: bool = True
    in_doubt: bool = False
    """Whether the submit may have become a job although the client has no id."""
    has_retry_after: bool = False


class Load:
    def __init__(
        self,
        urls: list[str],
        ledger: Ledger,
        samples: list[tuple[bytes, str]],
        *,
        rate: float,
        seed: int,
        recheck_seconds: float,
        refused_writes: Callable[[float, float], bool],
    ) -> None:
        """`refused_writes` returns whether Redis was down or full at any time between two times."""
        self._urls = urls
        self._ledger = ledger
        self._samples = samples
        self._rate = rate
        self._random = random.Random(seed)
        self._refused_writes = refused_writes
        self._recheck_seconds = recheck_seconds
        self._tasks = set[asyncio.Task[None]]()
        self._submitting = 0
        self.stopping = False
        self.uploads = Counter[str]()
        """Archives that are being uploaded, by API."""
        self.outcomes, self.outcomes_in_outage = Counter[str](), Counter[str]()
        """Outcomes of submits while Redis accepted writes, and while it did not."""
        self.failures = Counter[str]()
        """Submits that failed while Redis accepted writes, by fault and outcome."""
        self.violations = Counter[str]()
        """Refusals without Retry-After, and errors of this client."""
        self.in_doubt = 0
        """Submits of which the client does not know whether they became jobs."""
        self.probes = 0
        """Submits that only test whether work goes on; they are not in the ledger."""
        self.skipped = 0
        """Images that were not sent because too many submits had no response yet."""
        self.slowest = (0.0, "")
        """Seconds until the slowest response to a single image or a form, and the fault at that time."""
        self.lag = 0.0
        """Maximum seconds that this client's event loop was late: responses may have waited for so long."""

    @property
    def availability(self) -> float:
        return self.outcomes["accepted"] / max(1, self.outcomes.total())

    async def run(self) -> None:
        """Submit at the configured rate until `stopping`, and read every job to its end."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as self._http:
            self._verifier = Verifier(
                self._http, self._urls, self._ledger, self._random, recheck_seconds=self._recheck_seconds
            )
            began, images = time.monotonic(), 0
            while not self.stopping:
                while images < (time.monotonic() - began) * self._rate:
                    (kind,) = self._random.choices(list(SUBMITS), list(SUBMITS.values()))
                    images += IMAGES[kind]
                    if self._submitting < IN_FLIGHT_MAX:
                        self._start(self._submit(kind))
                    else:
                        self.skipped += IMAGES[kind]
                slept = time.monotonic()
                await asyncio.sleep(TICK_SECONDS)
                self.lag = max(self.lag, time.monotonic() - slept - TICK_SECONDS)
            while self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violations[f"this client failed: {error!r}"] += 1

    # -- submitting

    async def _submit(self, kind: str) -> None:
        picked = [self._pick() for _ in range(IMAGES[kind])]
        key = f"{self._random.getrandbits(128):032x}" if self._random.random() < KEYED_SHARE else ""
        self._submitting += 1
        try:
            job_id = await self._submit_until_answered(kind, [image for image, _ in picked], key)
        finally:
            self._submitting -= 1
        if job_id is not None:
            self._start(self._verifier.verify(self._ledger.accept(job_id, [name for _, name in picked])))

    def _pick(self) -> tuple[bytes, str]:
        if self._random.random() < BAD_SHARE:
            return BAD_IMAGE, "not_an_image"
        return self._random.choice(self._samples)

    async def _submit_until_answered(self, kind: str, images: list[bytes], key: str) -> str | None:
        """The job's id, or None if the submit was refused or is in doubt.

        As a load balancer would, it tries another API if one cannot be reached. A submit whose outcome is in doubt is
        repeated only if it has an idempotency key.
        """
        began = time.monotonic()
        url = self._random.choice(self._urls)
        for tries in itertools.count(1):
            outcome = await self._post(url, kind, images, key)
            again = not outcome.connected or (key and outcome.in_doubt)
            patience = KEY_TRIES_SECONDS if key else CONNECT_TRIES_SECONDS
            if not again or (time.monotonic() - began > patience and tries >= 2 * len(self._urls)):
                break
            url = self._urls[(self._urls.index(url) + 1) % len(self._urls)]
            await asyncio.sleep(0.05)
        summary = "accepted" if outcome.job_id else f"{kind}: {outcome.summary}"
        if self._refused_writes(began, time.monotonic()):
            self.outcomes_in_outage[summary] += 1
        else:
            self.outcomes[summary] += 1
            if outcome.job_id is None:
                self.failures[f"{self._ledger.fault}: {summary}"] += 1
        if outcome.job_id is None:
            self.in_doubt += outcome.in_doubt
            if not outcome.has_retry_after and not outcome.in_doubt:
                self.violations[summary] += 1
        return outcome.job_id

    async def _post(self, url: str, kind: str, images: list[bytes], key: str) -> SubmitOutcome:
        headers = {"Idempotency-Key": key} if key else {}
        data: Any = images[0]
        if kind == "single":
            headers["Content-Type"] = "image/png"
        elif kind == "form":
            data = aiohttp.FormData()
            for number, image in enumerate(images):
                data.add_field("files", image, filename=f"{number}.png")
        else:
            headers["Content-Type"] = "application/x-tar"
            data = _in_pieces(tar_of(images))
        began = time.monotonic()
        self.uploads[url] += kind == "tar"
        try:
            async with self._http.post(f"{url}/v1/jobs", data=data, headers=headers) as reply:
                body = json.loads(await reply.read())
        except aiohttp.ClientConnectorError as error:
            return SubmitOutcome(f"no connection: {error.os_error!r}", connected=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return SubmitOutcome(type(error).__name__, in_doubt=True)
        finally:
            self.uploads[url] -= kind == "tar"
            if kind != "tar":
                self.slowest = max(self.slowest, (time.monotonic() - began, self._ledger.fault))
        if reply.status == 202:
            return SubmitOutcome("accepted", job_id=body["id"])
        in_doubt = reply.status == 409 or body.get("outcome") == "unknown"
        has_retry_after = reply.status in (429, 503) and "Retry-After" in reply.headers
        return SubmitOutcome(f"{reply.status} {body.get('code')}", in_doubt=in_doubt, has_retry_after=has_retry_after)


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """The data in pieces with pauses, so that a fault may kill the API in the middle of the upload."""
    size = len(data) // PIECES + 1
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(0.05)
