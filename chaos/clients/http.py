"""HTTP as a careful client speaks it: to any API, and repeated when, and only when, the response says so."""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp

TIMEOUT_SECONDS = 40
KEYED_SECONDS_MAX = 150.0  # an aborted upload occupies its key until it is canceled
PLAIN_SECONDS_MAX = 20.0
PAUSE_SECONDS = 0.05
IN_PROGRESS = "idempotency_in_progress"
RETRY_AFTER_SECONDS_MAX = 2.0  # that the client heeds: a run is short

Body = Callable[[], Any]
"""Makes a request's body; a generator cannot be sent twice."""


@dataclass(frozen=True)
class Reply:
    """A response, or why there is none."""

    summary: str
    """Status and code, or the error of the connection."""
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    retry_after: bool = False
    sent: bool = True
    """Whether the request may have reached an API."""

    @property
    def in_doubt(self) -> bool:
        """Whether the request may have had its effect although the response does not say so."""
        return self.sent and (self.status in (0, 409) or self.body.get("outcome") == "unknown")

    @property
    def refused(self) -> bool:
        """Whether the API says that nothing was done, and that the request may be repeated."""
        return self.status in (429, 503) and not self.in_doubt and "job_id" not in self.body


class Outcomes:
    """First responses to submits, and what contradicts the API's promises."""

    def __init__(self, refused_writes: Callable[[float, float], bool]) -> None:
        """`refused_writes` returns whether Redis was down or full at any time between two times."""
        self.refused_writes = refused_writes
        self.counts, self.counts_in_outage = Counter[str](), Counter[str]()
        """Outcomes of submits while Redis accepted writes, and while it did not."""
        self.failures = Counter[str]()
        """Submits that failed at first while Redis accepted writes, by fault and outcome."""
        self.violations = Counter[str]()
        """Refusals without Retry-After, and errors of the clients themselves."""
        self.repeats = Counter[str]()
        self.late_at = -math.inf
        """When the clients were last so late that an upload of theirs may have counted as idle."""
        self.slowest = (0.0, "")
        """Seconds until the slowest response to a single image or a form, and the fault at that time."""

    @property
    def availability(self) -> float:
        return self.counts["accepted"] / max(1, self.counts.total())

    def record(self, kind: str, first: Reply, began: float, fault: str) -> None:
        summary = "accepted" if first.status in (200, 202) else f"{kind}: {first.summary}"
        if self.refused_writes(began, time.monotonic()):
            self.counts_in_outage[summary] += 1
        else:
            self.counts[summary] += 1
            if summary != "accepted":
                self.failures[f"{fault}: {summary}"] += 1
        if (first.status in (429, 503) or first.body.get("code") == IN_PROGRESS) and not first.retry_after:
            self.violations[f"{summary} without Retry-After"] += 1

    def contradicts(self, kind: str, reply: Reply, began: float) -> None:
        """Count a response that the API should not have given, unless this client itself has paused in its upload."""
        if reply.status != HTTPStatus.REQUEST_TIMEOUT or self.late_at < began:
            self.violations[f"{kind}: {reply.summary}"] += 1

    def took(self, seconds: float, fault: str) -> None:
        self.slowest = max(self.slowest, (seconds, fault))


class Caller:
    """Calls of one owner."""

    def __init__(
        self, http: aiohttp.ClientSession, urls: list[str], random_source: random.Random, owner: str, key: str
    ) -> None:
        self.http = http
        self.owner = owner
        self.urls = urls
        self._random = random_source
        self.headers = {"Authorization": f"Bearer {key}"}
        self.uploads = Counter[str]()
        """Archives that are being uploaded, by API."""

    def url(self, path: str) -> str:
        return self._random.choice(self.urls) + path

    async def post(
        self,
        path: str,
        body: Body = lambda: b"",
        *,
        headers: dict[str, str] | None = None,
        key: str = "",
        archive: bool = False,
        first: Callable[[Reply], None] = lambda _: None,
        seconds_max: float | None = None,
        base: str = "",
    ) -> Reply:
        """Post until there is a final response: as a load balancer would, to another API if one cannot be reached.

        A request whose effect is in doubt is repeated only under an Idempotency-Key; one that was refused is repeated
        as its `Retry-After` says. `first` gets the first response. `base`: the API that is asked first, or any.
        """
        headers = (headers or {}) | self.headers | ({"Idempotency-Key": key} if key else {})
        seconds_max = seconds_max or (KEYED_SECONDS_MAX if key else PLAIN_SECONDS_MAX)
        began, tries, base = time.monotonic(), 0, base or self._random.choice(self.urls)
        while True:
            reply = await self._post(base, path, body(), headers, archive=archive)
            tries += 1
            over = time.monotonic() - began > seconds_max and tries >= 2 * len(self.urls)
            if reply.sent or over:
                first(reply)
                first = _ignore
            if over or not self._again(reply, key):
                return reply
            base = self.urls[(self.urls.index(base) + 1) % len(self.urls)]
            await asyncio.sleep(self._pause(reply))

    def _again(self, reply: Reply, key: str) -> bool:
        return not reply.sent or reply.refused or (bool(key) and reply.in_doubt)

    def _pause(self, reply: Reply) -> float:
        if reply.status in (409, 429, 503):
            seconds = float(reply.body.get("retry_after_seconds", 1))
            return min(seconds, RETRY_AFTER_SECONDS_MAX) * self._random.uniform(0.5, 1)
        return PAUSE_SECONDS

    async def _post(self, base: str, path: str, data: Any, headers: dict[str, str], *, archive: bool) -> Reply:
        self.uploads[base] += archive
        try:
            async with self.http.post(base + path, data=data, headers=headers) as response:
                body = json.loads(await response.read())
        except aiohttp.ClientConnectorError as error:
            return Reply(f"no connection: {error.os_error!r}", sent=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Reply(type(error).__name__)
        finally:
            self.uploads[base] -= archive
        status, retry_after = response.status, "Retry-After" in response.headers
        if retry_after:
            body["retry_after_seconds"] = response.headers["Retry-After"]
        code = body.get("code")
        return Reply(f"{status} {code}" if code else str(status), status, body, retry_after)

    async def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Raises as aiohttp does."""
        async with self.http.get(self.url(path), headers=self.headers | headers) as response:
            return response.status, await response.read()

    async def change(self, method: str, path: str, seconds_max: float = KEYED_SECONDS_MAX) -> int:
        """A request that may be repeated whatever became of it; its status, or 0 if there was none in time."""
        until = time.monotonic() + seconds_max
        while time.monotonic() < until:
            try:
                async with self.http.request(method, self.url(path), headers=self.headers) as response:
                    await response.read()
                    if response.status not in (429, 503):
                        return response.status
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.5)
        return 0


def _ignore(_: Reply) -> None:
    """The first response was recorded already."""
