"""Observes the waiters of APIs that run in the test process."""

import asyncio
from typing import Any

import httpx
import pytest

from api.results.completion import JobCompletions
from jobs.records import Outcome, Prediction
from tests.support.waiting import eventually


class ObservedCompletions:
    """The waiters of every API that is started after this object was created."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        created = self._created = list[JobCompletions]()
        self.rereads = 0
        observed = self

        class ObservedJobCompletions(JobCompletions):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                created.append(self)

            async def reread(self) -> None:
                await super().reread()
                observed.rereads += 1

        monkeypatch.setattr("api.services.JobCompletions", ObservedJobCompletions)

    @property
    def waiting(self) -> int:
        return sum(completions.waiting for completions in self._created)


def raw_id(path: str) -> bytes:
    """The id in a job's path, as bytes."""
    return bytes.fromhex(path.rpartition("/")[2].replace("-", ""))


def ranked_predictions(top_k: int) -> Outcome:
    """As many classes as a worker returns, with confidences of more digits than a response shows."""
    return [Prediction((4 + n) % 10, 0.6488123456 / (n + 1)) for n in range(top_k)]


async def submit_image(api: httpx.AsyncClient, image: bytes, top_k: int = 5) -> str:
    """Submit the image. Returns the path of its job."""
    answer = await api.post(f"/v1/jobs?top_k={top_k}", content=image, headers={"Content-Type": "image/png"})
    return str(answer.headers["Location"])


async def start_long_poll(
    api: httpx.AsyncClient, path: str, observed_completions: ObservedCompletions
) -> asyncio.Task[httpx.Response]:
    """Start a long poll. Returns once its waiter is subscribed."""
    poll = asyncio.create_task(api.get(f"{path}?wait=30"))
    await eventually(lambda: observed_completions.waiting == 1, what="the poll")
    return poll
