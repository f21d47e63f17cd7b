"""The clients' record of every job that was answered 202: what each image must become, and what became of it."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from chaos.readings import Expected, Reading, difference, problem_of_job, problems_of_items, without_details
from jobs.ids import from_text

NO_FAULT = "none yet"
UPLOAD_LOST = "upload_lost"
EXAMPLES_MAX = 20


@dataclass(slots=True)
class Accepted:
    """A job that the API has answered 202 for."""

    job_id: str
    owner: str
    expected: list[Expected]
    fault: str
    """The last fault that was injected before the job ended."""
    began: float
    """When its submit began."""
    whole_at: float | None = None
    """When a response said that the store has all its images; None if several requests brought them."""
    ended_at: float | None = None
    """When a client has first seen it ended."""
    may_be_canceled: bool = False
    webhook: bool = False
    answer: dict[str, Any] | None = None
    """The ended job, if the response to its submit had it."""
    first: Reading | None = None


class Doubt(NamedTuple):
    """A submit of which its client does not know whether it became a job."""

    owner: str
    token: str
    """Its Idempotency-Key, or the beginning of its images' names. Empty: it had neither."""
    began: float
    ended: float
    """Seconds since the epoch."""


class Loss(NamedTuple):
    """A time in which the store lost what it had acknowledged, because a fault made it."""

    since: float
    until: float
    all_before: bool
    """Whether everything that was accepted before is lost, too."""


_TIMES = ("created_at", "completed_at", "expires_at")  # of a job, by the clock of Redis


class Ledger:
    def __init__(self) -> None:
        self.fault = NO_FAULT
        self.open = dict[str, Accepted]()
        """Jobs whose end no client has read yet."""
        self.jobs = dict[bytes, Accepted]()
        """All jobs, by their id in the store."""
        self.known = set[bytes]()
        """Other jobs that clients know of: probes of one image, and open jobs that they gave up."""
        self.doubts = list[Doubt]()
        self.items = Counter[str]()
        """Accepted images by fault. The other counters are by fault, too."""
        self.lost = Counter[str]()
        self.doubled = Counter[str]()
        self.changed = Counter[str]()
        self.wrong = Counter[str]()
        self.cut_short = Counter[str]()
        self.forgotten = Counter[str]()
        """Images that a fault made the store forget."""
        self.examples = list[str]()
        """The first few errors, for debugging."""
        self.seconds_by_owner = dict[str, list[float]]()
        """Seconds from the submit of a single image to its end."""
        self._losses = list[Loss]()
        self._clock_moves = list[list[float]]()
        self._releases_mixed = list[list[float]]()
        self._deleted = defaultdict[str, set[int]](set)
        """Images whose uploads a fault has deleted, by job."""

    def begin_fault(self, fault: str) -> None:
        """Attribute to this fault all jobs that have not ended."""
        self.fault = fault
        for job in self.open.values():
            job.fault = fault

    @contextmanager
    def store_loses(self, *, all_before: bool) -> Iterator[None]:
        """During the block a fault makes the store forget what it acknowledges, or also all that it had before."""
        since = time.monotonic()
        self._losses.append(Loss(since, float("inf"), all_before))
        try:
            yield
        finally:
            self._losses[-1] = Loss(since, time.monotonic(), all_before)

    @contextmanager
    def clock_moves(self) -> Iterator[None]:
        """During the block the clock of Redis is set forwards and back: a job's times may contradict each other."""
        with _span(self._clock_moves):
            yield

    @contextmanager
    def releases_mixed(self) -> Iterator[None]:
        """During the block, APIs of two releases answer: the texts of errors may differ."""
        with _span(self._releases_mixed):
            yield

    def _has_odd_times(self, job: Accepted) -> bool:
        ended_at = job.ended_at or float("inf")
        return any(job.began <= until and since <= ended_at for since, until in self._clock_moves)

    def uploads_deleted(self, job_id: str, indices: Iterable[int]) -> None:
        """A fault has deleted the uploads of these images, and their job has not ended: they must be `upload_lost`."""
        self._deleted[job_id].update(indices)

    def is_excused(self, job: Accepted) -> bool:
        """Whether a fault may have made the store forget this job or its end."""
        return any(self._losses_of(job))

    def _may_lack_images(self, job: Accepted) -> bool:
        """Whether a fault may have made the store forget some of its images, and nobody was told since that it has all.

        What was acknowledged in parts may lack one that the store acknowledged and forgot.
        """
        return any(job.whole_at is None or job.whole_at <= loss.until for loss in self._losses_of(job))

    def _losses_of(self, job: Accepted) -> Iterator[Loss]:
        """The times in which the store may have forgotten this job, its end, or a part of it."""
        for loss in self._losses:
            if job.began <= loss.until and (loss.all_before or job.ended_at is None or job.ended_at >= loss.since):
                yield loss

    def has_lost_since(self, began: float) -> bool:
        """Whether a fault made the store forget anything after this time."""
        return any(loss.until >= began for loss in self._losses)

    def accept(self, job: Accepted) -> Accepted:
        key = from_text(job.job_id)
        assert key is not None
        if key in self.jobs:
            self._record(self.doubled, job, "two submits got the same job")
        self.jobs[key] = job
        self.open[job.job_id] = job
        return job

    def know(self, job_id: str) -> None:
        key = from_text(job_id)
        assert key is not None
        self.known.add(key)

    def ended(self, job: Accepted, reading: Reading) -> None:
        """The client has read the ended job."""
        self.open.pop(job.job_id, None)
        self.items[job.fault] += len(job.expected)
        job.first, job.ended_at = reading, time.monotonic()
        self._expect_lost_uploads(job)
        if len(job.expected) == 1:
            self.seconds_by_owner.setdefault(job.owner, []).append(job.ended_at - job.began)
        missing, may_lack_images = len(job.expected) - len(reading.items), self._may_lack_images(job)
        may_be_canceled = job.may_be_canceled or may_lack_images  # the store forgot its seal
        if missing > 0 and may_lack_images:
            self.forgotten[job.fault] += missing
        elif missing > 0:
            self._record(self.lost, job, f"{missing} of {len(job.expected)} images are not among the results", missing)
        elif missing < 0:
            self._record(self.doubled, job, f"{len(reading.items)} results for {len(job.expected)} images")
        else:
            for problem in problems_of_items(job.expected, reading.items, may_be_canceled=may_be_canceled):
                self._record(self.wrong, job, problem)
        if job.answer is not None:
            self.read_job_otherwise(job, "its submit was answered with", job.answer)
        if missing == 0:
            odd_times = self._has_odd_times(job)
            if problem := problem_of_job(reading, odd_times=odd_times, may_be_canceled=may_be_canceled):
                self._record(self.wrong, job, problem)

    def _expect_lost_uploads(self, job: Accepted) -> None:
        for index in self._deleted.pop(job.job_id, ()):
            job.expected[index] = Expected(job.expected[index].name, codes=(UPLOAD_LOST,))
        if self.is_excused(job):  # its files were deleted at an end that the store has forgotten
            job.expected = [replace(it, codes=(*it.codes, UPLOAD_LOST)) for it in job.expected]

    def read_again(self, job: Accepted, reading: Reading) -> None:
        """Once it has ended, nothing of a job changes."""
        assert job.first is not None
        if self._has_odd_times(job):
            reading = reading._replace(job=reading.job | {name: job.first.job[name] for name in _TIMES})
        if self._differ(job, reading, job.first):
            parts = [name for name, one, other in zip(Reading._fields, job.first, reading, strict=True) if one != other]
            self._record(self.changed, job, f"changed: {', '.join(parts)}: {difference(job.first, reading)}")

    def read_otherwise(self, job: Accepted, how: str, items: list[dict[str, Any]]) -> None:
        """Another way of reading the items must give the same."""
        assert job.first is not None
        if self._differ(job, items, job.first.items):
            self._record(self.changed, job, f"{how}: {len(items)} items, not the {len(job.first.items)} of NDJSON")

    def read_job_otherwise(self, job: Accepted, how: str, found: dict[str, Any]) -> None:
        assert job.first is not None
        if self._differ(job, found, job.first.job):
            self._record(self.changed, job, f"{how} {found}, and it is {job.first.job}")

    def _differ(self, job: Accepted, one: Any, other: Any) -> bool:
        if self._saw_earlier_release(job):
            one, other = without_details(one), without_details(other)
        return one != other and not self.is_excused(job)

    def _saw_earlier_release(self, job: Accepted) -> bool:
        return any(job.began <= until and since <= time.monotonic() for since, until in self._releases_mixed)

    def ended_short(self, job: Accepted, how: str) -> None:
        """A response that looks whole is not. Earlier releases end streams so when they stop."""
        if not self.is_excused(job) and not self._saw_earlier_release(job):
            self._record(self.cut_short, job, how)

    def never_ended(self, job: Accepted, why: str) -> None:
        """The job does not exist, or does not end."""
        self.open.pop(job.job_id, None)
        if self.is_excused(job):
            self.forgotten[job.fault] += len(job.expected)
            return
        self.items[job.fault] += len(job.expected)
        self._record(self.lost, job, why, len(job.expected))

    def vanished(self, job: Accepted, why: str) -> None:
        """The job ended, and is gone before its time to live."""
        if not self.is_excused(job):
            self._record(self.lost, job, why, len(job.expected))

    def contradicted(self, job: Accepted, what: str) -> None:
        """What the API says of a job is not so."""
        self._record(self.wrong, job, what)

    @property
    def broken(self) -> int:
        counters = (self.lost, self.doubled, self.changed, self.wrong, self.cut_short)
        return sum(counter.total() for counter in counters)

    def _record(self, counter: Counter[str], job: Accepted, what: str, items: int = 1) -> None:
        counter[job.fault] += items
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{job.fault}: job {job.job_id} of {job.owner}: {what}")


@contextmanager
def _span(spans: list[list[float]]) -> Iterator[None]:
    """Add the time of the block to the spans."""
    span = [time.monotonic(), float("inf")]
    spans.append(span)
    try:
        yield
    finally:
        span[1] = time.monotonic()
