"""Submits images, waits for the job's end, reads the results."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
FILES_A_SUBMIT_MAX = 64
_WAIT_SECONDS_MAX = 20  # of one request that waits for the end of a job


class DarkroomError(Exception):
    """The server refused the request, or did not respond.

    `code` is the server's stable code, or "unreachable"; `status` its HTTP status, or None.
    """

    def __init__(self, code: str, detail: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    status: str
    total: int
    pending: int
    succeeded: int
    failed: int
    canceled: int

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "canceled")


@dataclass(frozen=True, slots=True)
class Item:
    """One image's result. If `status` is not succeeded, `class_name` is None and `error` has the code."""

    index: int
    name: str | None
    status: str
    class_name: str | None
    confidence: float | None
    top_k: list[tuple[str, float]]
    warnings: list[str]
    """`unfamiliar`: the image is unlike the training data."""
    error: str | None


class Darkroom:
    """A connection to a server. Close it, or use it in a `with`.

    `url` and `api_key` default to the environment's DARKROOM_URL and DARKROOM_API_KEY.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, timeout_seconds: float = 30) -> None:
        key = api_key or os.environ.get("DARKROOM_API_KEY")
        self._http = httpx.Client(
            base_url=url or os.environ.get("DARKROOM_URL") or DEFAULT_URL,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_seconds, read=timeout_seconds + _WAIT_SECONDS_MAX),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, *images: str | Path, model: str | None = None, top_k: int | None = None) -> Job:
        """Submit 1 to 64 image files as one job; returns at once.

        Raises:
            DarkroomError, OSError
        """
        query = {name: value for name, value in (("model", model), ("top_k", top_k)) if value is not None}
        with ExitStack() as stack:
            files = [("files", (Path(path).name, stack.enter_context(Path(path).open("rb")))) for path in images]
            return _job(self._call("POST", "/v1/jobs", params=query, files=files))

    def get(self, job_id: str) -> Job:
        """The job as it stands now."""
        return _job(self._call("GET", f"/v1/jobs/{job_id}"))

    def wait(self, job_id: str, *, timeout_seconds: float = 300) -> Job:
        """The job once it has ended.

        Raises:
            TimeoutError: it has not ended in time; it continues on the server.
        """
        ends = time.monotonic() + timeout_seconds
        while True:
            wait = max(0.0, min(_WAIT_SECONDS_MAX, ends - time.monotonic()))
            job = _job(self._call("GET", f"/v1/jobs/{job_id}", params={"wait": round(wait, 3)}))
            if job.ended:
                return job
            if time.monotonic() >= ends:
                raise TimeoutError(f"job {job_id} is {job.status} after {timeout_seconds:g} s")

    def results(self, job_id: str) -> Iterator[Item]:
        """All items of the job, in order."""
        cursor: str | None = None
        while True:
            query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            page = self._call("GET", f"/v1/jobs/{job_id}/results", params=query)
            yield from map(_item, page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def classify(
        self, *images: str | Path, model: str | None = None, top_k: int | None = None, timeout_seconds: float = 300
    ) -> list[Item]:
        """Submit any number of image files and wait for all of them. Results come in the files' order."""
        submits = range(0, len(images), FILES_A_SUBMIT_MAX)
        jobs = [self.submit(*images[at : at + FILES_A_SUBMIT_MAX], model=model, top_k=top_k) for at in submits]
        for job in jobs:
            self.wait(job.id, timeout_seconds=timeout_seconds)
        return [item for job in jobs for item in self.results(job.id)]

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise DarkroomError("unreachable", f"{self._http.base_url}: {error}") from error
        if response.is_success:
            return response.json()
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        raise DarkroomError(
            problem.get("code", "http_error"), problem.get("detail", response.reason_phrase), response.status_code
        )


def _job(data: dict[str, Any]) -> Job:
    return Job(id=data["id"], status=data["status"], **data["counts"])


def _item(data: dict[str, Any]) -> Item:
    return Item(
        index=data["index"],
        name=data["name"],
        status=data["status"],
        class_name=data.get("class"),
        confidence=data.get("confidence"),
        top_k=[(ranked["class"], ranked["confidence"]) for ranked in data.get("top_k", [])],
        warnings=data.get("warnings", []),
        error=data["error"]["code"] if "error" in data else None,
    )
