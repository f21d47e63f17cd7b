"""The client's record of every job that was answered 202: the expected and the actual outcome of each image."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NO_FAULT = "none yet"


@dataclass(slots=True)
class Accepted:
    """A job that the API has answered 202 for."""

    job_id: str
    expected: list[str]
    """For each image its class, or the code of its error."""
    fault: str
    """The last fault that was injected before the job ended."""
    at: float = field(default_factory=time.monotonic)
    outcomes: list[str] | None = None
    """The outcomes that the client read first."""


class Ledger:
    def __init__(self) -> None:
        self.fault = NO_FAULT
        self.open = dict[str, Accepted]()
        """Jobs whose end the client has not read yet."""
        self.ids = set[str]()
        self.items = Counter[str]()
        """Accepted images by fault. The other counters are by fault, too."""
        self.lost = Counter[str]()
        self.doubled = Counter[str]()
        self.changed = Counter[str]()
        self.wrong = Counter[str]()
        self.examples = list[str]()
        """The first few errors, for debugging."""

    def begin_fault(self, fault: str) -> None:
        """Attribute to this fault all jobs that have not ended."""
        self.fault = fault
        for job in self.open.values():
            job.fault = fault

    def accept(self, job_id: str, expected: list[str]) -> Accepted:
        job = Accepted(job_id, expected, self.fault)
        if job_id in self.ids:
            self._record(self.doubled, job, "two submits got the same job")
        self.ids.add(job_id)
        self.open[job_id] = job
        return job

    def ended(self, job: Accepted, items: list[dict[str, Any]]) -> None:
        """The client has read the ended job, with these items."""
        outcomes = _outcomes(items, len(job.expected))
        del self.open[job.job_id]
        self.items[job.fault] += len(job.expected)
        job.outcomes = outcomes
        for index, (outcome, expected) in enumerate(zip(outcomes, job.expected, strict=True)):
            if outcome == "missing":
                self._record(self.lost, job, f"image {index} is not among the results")
            elif outcome != expected:
                self._record(self.wrong, job, f"image {index} is {outcome}, not {expected}")
        if len(items) > len(job.expected):
            self._record(self.doubled, job, f"{len(items)} results for {len(job.expected)} images")

    def read_again(self, job: Accepted, items: list[dict[str, Any]]) -> None:
        if _outcomes(items, len(job.expected)) != job.outcomes:
            self._record(self.changed, job, "its results changed")

    def never_ended(self, job: Accepted, why: str) -> None:
        """The job does not exist, or does not end."""
        self.open.pop(job.job_id, None)
        self.items[job.fault] += len(job.expected)
        self._record(self.lost, job, why, len(job.expected))

    def vanished(self, job: Accepted, why: str) -> None:
        """The job ended, and is gone before its time to live."""
        self._record(self.lost, job, why, len(job.expected))

    def _record(self, counter: Counter[str], job: Accepted, what: str, items: int = 1) -> None:
        counter[job.fault] += items
        if len(self.examples) < 20:
            self.examples.append(f"{job.fault}: job {job.job_id}: {what}")


def _outcomes(items: list[dict[str, Any]], count: int) -> list[str]:
    found = {item["index"]: _outcome(item) for item in items}
    return [found.get(index, "missing") for index in range(count)]


def _outcome(item: dict[str, Any]) -> str:
    if item["status"] == "failed":
        return str(item["error"]["code"])
    return str(item["class"]) if item["status"] == "succeeded" else str(item["status"])
