"""The blocking client, made from `darkroom/_async/` by `client/make_sync.py`: not to be changed here."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from darkroom._http import Retries
from darkroom._io_sync import closing, sleep
from darkroom.errors import ApiError, Unreachable, WaitTimeout
from darkroom.records import Counts, Item

if TYPE_CHECKING:
    from darkroom._sync.client import Darkroom

WAIT_SECONDS_MAX = 20.0  # of one request that waits for the end of a job


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when it was read; `refresh` reads it again. An `open` job still takes images."""

    id: str
    status: str
    model: str
    lane: str
    counts: Counts
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    raw: dict[str, Any] = field(repr=False)
    """The API's own object."""
    _client: "Darkroom" = field(repr=False, compare=False)
    eta_seconds: float | None = None
    notice: str | None = None
    skipped: int = 0
    retry_of: str | None = None

    @property
    def ended(self) -> bool:
        return self.completed_at is not None

    def refresh(self) -> "Job":
        return self._client.job(self.id)

    def wait(self, timeout_seconds: float | None = None) -> "Job":
        """The job once it has ended. Raises WaitTimeout if it has not in time; it goes on."""
        ends = None if timeout_seconds is None else monotonic() + timeout_seconds
        while True:
            left = WAIT_SECONDS_MAX if ends is None else min(WAIT_SECONDS_MAX, max(0.0, ends - monotonic()))
            job = self._client.to_job(self._call("GET", "", params={"wait": f"{left:.3f}"}, hold=left))
            if job.ended:
                return job
            if ends is not None and monotonic() >= ends:
                raise WaitTimeout(f"job {self.id} is {job.status} after {timeout_seconds:g} s")

    def results(self, *, status: str | None = None, follow: bool = False, start: int = 0) -> Generator[Item]:
        """The images that have ended, in order, from the index `start`; with `follow` all, as they end."""
        fixed = {"format": "ndjson"} | ({"follow": "true"} if follow else {}) | ({"status": status} if status else {})
        retries = Retries(self._client.retry_seconds)
        while True:
            try:
                params = fixed | ({"from": str(start)} if start else {})
                with closing(self._lines("/results", params, retries)) as lines:
                    for line in lines:
                        item = Item.of(json.loads(line.decode()))
                        start = item.index + 1
                        retries.reset()
                        yield item
                return
            except (ApiError, Unreachable) as error:
                sleep(retries.pause_seconds(error))

    def progress(self) -> Generator["Job"]:
        """The job each time that its counts change, and at last as it ended."""
        retries = Retries(self._client.retry_seconds)
        while True:
            try:
                with closing(self._lines("/events", {}, retries)) as lines:
                    for line in lines:
                        if line.startswith(b"data:"):
                            retries.reset()
                            job = self._client.to_job(self.raw | json.loads(line[5:]))
                            yield job
                            if job.ended:
                                return
                raise Unreachable(f"the events of job {self.id} broke off")
            except (ApiError, Unreachable) as error:
                sleep(retries.pause_seconds(error))

    def cancel(self) -> "Job":
        """Cancel the images that have not ended."""
        return self._client.to_job(self._call("POST", "/cancel"))

    def retry(self) -> "Job":
        """A new job of the failed images whose failure may pass. Raises JobNotEnded, NothingToRetry."""
        return self._client.to_job(self._call("POST", "/retry"))

    def delete(self) -> None:
        self._call("DELETE", "")

    def webhook(self) -> dict[str, Any]:
        """The state of the job's webhook with its last attempts, as the API has it."""
        found: dict[str, Any] = self._call("GET", "/webhook")
        return found

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._client.call(method, job_path(self.id) + path, **options)

    def _lines(self, path: str, params: dict[str, str], retries: Retries) -> Generator[bytes]:
        return self._client.lines(job_path(self.id) + path, params, retries)


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
